"""QEMU's options become rrgdb's own, each as the table says."""

from __future__ import annotations

import re

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.cli.main import cli
from rrgdb.cli.qemu.boot import Booting
from rrgdb.cli.qemu.table import BY_NAME, OPTIONS, Fate
from rrgdb.cli.qemu.translate import Own, translate
from rrgdb.opening import OptionError


def own(verb: str) -> Own:
    command = cli.commands[verb]
    assert isinstance(command, Booting)
    return command._own(click.Context(command, info_name=verb))


RUN, RECORD = own("run"), own("record")


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("-kernel Image", "--kernel=Image"),
        ("--kernel Image", "--kernel=Image"),
        ("--kernel=Image", "--kernel=Image"),
        ("-kernel -x", "--kernel=-x"),
        ("-append a=b,c", "--append=a=b,c"),
        ("-M virt -machine gic-version=2", "--machine=virt --machine=gic-version=2"),
        ("-m 512M", "--memory=512M"),
        ("-m size=1G", "--memory=1G"),
        ("-m512M", "-m512M"),
        ("-Mriscv64-virt", "-Mriscv64-virt"),
        ("-smp 1 -accel tcg,thread=single -display none -nic none -net none", ""),
        ("-monitor none -S -snapshot -name guest -nodefaults -no-user-config", ""),
        ("-rtc base=utc,clock=host", ""),
        ("-object rng-random,filename=/dev/urandom,id=r", ""),
        ("-s", "--gdb=:1234"),
        ("-gdb tcp::1234", "--gdb=:1234"),
        ("-gdb tcp:127.0.0.1:1234,server=on,wait=off", "--gdb=127.0.0.1:1234"),
        ("--gdb unix:/a", "--gdb=unix:/a"),
        ("-nographic", "--serial=mon:stdio"),
        ("-nographic -serial null", "--serial=null"),
        ("-serial null -nographic", "--serial=null"),
        ("-no-reboot -c x.elf -smp 9", "--no-reboot -c x.elf -smp 9"),
        ("-o r --once -- -smp 9", "-o r --once -- -smp 9"),
        ("-icount shift=auto,sleep=off", "--icount=shift=auto,sleep=off"),
    ],
)
def test_what_they_become(given: str, becomes: str) -> None:
    assert translate(given.split(), RUN) == becomes.split()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("-smp 2", "-smp 2: expected -smp 1: the boards have one CPU"),
        ("-smp cpus=1,maxcpus=4", "the boards have one CPU"),
        ("-accel kvm", "-accel kvm: expected -accel tcg"),
        ("-enable-kvm", "-enable-kvm: refused: KVM's CPU is not exact"),
        ("-rtc base=localtime", "expected -rtc"),
        ("-kernell x", "-kernell: no such option; the nearest one is -kernel"),
        ("--kernell x", "--kernell: no such option; the nearest one is --kernel"),
        ("-nographics", "the nearest one is -nographic"),
        ("-zzzzzz", "-zzzzzz: no such option; see --help"),
        ("-kernel", "-kernel: expected a value behind it"),
        ("-nographic=on", "-nographic takes no value"),
        ("-no-shutdown", "-no-shutdown: refused"),
        ("-m 1G,slots=2", "-m slots=2: RAM cannot be plugged in"),
        ("-m slots=2", "-m slots=2: expected size=…"),
        ("-device", "expected a value"),
    ],
)
def test_what_is_refused(given: str, reason: str) -> None:
    with pytest.raises(OptionError, match=re.escape(reason)):
        translate(given.split(), RUN)


def test_without_a_debugger_there_is_no_option_for_one() -> None:
    for option in ("-s", "-gdb tcp::1", "-S"):
        with pytest.raises(OptionError, match="expected with `rrgdb run` alone"):
            translate(option.split(), RECORD)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_row_of_the_table_does_what_it_says(option: object) -> None:
    row = BY_NAME[option.name]
    arguments = [f"-{row.name}", *(["1"] if row.value else [])]
    if row.fate is Fate.REFUSED:
        with pytest.raises(OptionError, match="refused"):
            translate(arguments, RUN)
    elif row.fate is not Fate.NOTHING and row.name != "nographic":
        (done,) = translate(arguments, RUN)
        assert done.partition("=")[0] == row.to.partition(" ")[0]
        assert done.partition("=")[0] in RUN.names
    assert row.note


def test_no_name_stands_for_two_options() -> None:
    assert len(BY_NAME) == sum(len(option.names) for option in OPTIONS)


WORDS = st.sampled_from([f"-{name}" for name in BY_NAME] + sorted(RUN.names)) | st.text(max_size=12)


@given(st.lists(WORDS | st.builds("-{}".format, st.text(max_size=6)), max_size=6))
def test_any_arguments_are_translated_or_refused_in_one_line(arguments: list[str]) -> None:
    said = ""
    try:
        translate(arguments, RUN)
    except OptionError as e:
        said = str(e)
    assert len(said) < 500
