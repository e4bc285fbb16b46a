"""The options of ``rrgdb run`` and ``rrgdb record`` that say what the guest is, as click declares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rrgdb.cli.qemu.translate import Own

_OPTIONS: tuple[tuple[tuple[str, ...], str, str, bool], ...] = (
    (("--kernel",), "FILE", "Kernel to boot, as QEMU takes it, in place of IMAGE.", False),
    (("--initrd",), "FILE", "Initial RAM disk for the kernel.", False),
    (("--append",), "TEXT", "The kernel's command line.", False),
    (("--dtb",), "FILE", "Device tree in place of the board's.", False),
    (("--bios", "firmware"), "FILE", "Firmware to boot, in place of IMAGE; none: without the board's own.", False),
    (("--device", "devices"), "DRIVER[,…]", "A device, as QEMU's -device. May be given again.", True),
    (("--drive", "drives"), "file=FILE,if=none,id=ID[,…]", "The image of a --device. May be given again.", True),
    (("--chardev", "chardevs"), "BACKEND,id=ID[,…]", "A backend for --serial chardev:ID. May be given again.", True),
    (("--global", "globals_"), "DRIVER.PROPERTY=VALUE", "virtio-mmio.force-legacy=on or off.", True),
    (("--icount",), "[shift=]N|auto[,…]", "An instruction is 2**N nanoseconds of virtual time; default 0.", False),
)


def boot_options(command: Any) -> Any:
    """QEMU's options that have no older name in rrgdb."""
    command = click.option("--no-reboot", is_flag=True, help="A guest that resets the machine ends.")(command)
    for names, metavar, text, several in reversed(_OPTIONS):
        command = click.option(*names, metavar=metavar, help=text, multiple=several)(command)
    return command


class Booting(click.Command):
    """A verb that takes QEMU's options beside its own. What is wrong with its arguments is one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Where there are arguments: not to say what the options are.
        from rrgdb.cli.qemu.translate import translate  # noqa: PLC0415
        from rrgdb.opening.options import OptionError  # noqa: PLC0415

        try:
            return super().parse_args(ctx, translate(args, self._own(ctx)))
        except click.UsageError as e:
            raise OptionError(e.format_message()) from None

    def _own(self, ctx: click.Context) -> Own:
        from rrgdb.cli.qemu.translate import Own  # noqa: PLC0415

        options = (p for p in self.get_params(ctx) if isinstance(p, click.Option))
        return Own({name: not (o.is_flag or o.count) for o in options for name in (*o.opts, *o.secondary_opts)})
