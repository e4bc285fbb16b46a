"""Conditions of breakpoints, judged where the guest stands."""

from __future__ import annotations

from rrgdb.agent.bytecode import AgentError
from rrgdb.agent.evaluate import judge
from rrgdb.engine.base import Conditions, Engine
from rrgdb.timeline.stop import Condition


def agent_condition(engine: Engine, codes: Conditions) -> Condition:
    """The condition that these agent expressions are."""
    arch = engine.arch

    def register(number: int) -> int:
        if number >= arch.numbered:
            raise AgentError(f"register {number}: {arch.name} has {arch.numbered}")
        return arch.read_numbered(engine, number)

    def judged() -> tuple[bool, str | None]:
        return judge(codes, register, engine.read_memory, arch.byteorder)

    return Condition(lambda: judged()[0], codes, lambda: judged()[1])
