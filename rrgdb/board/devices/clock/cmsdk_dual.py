"""The dual timer of the Cortex-M System Design Kit (ARM DDI 0479, section 4.4; where it is open, QEMU's
``cmsdk-apb-dualtimer``)."""

from __future__ import annotations

from typing import Any

from rrgdb.board.device import Machine
from rrgdb.board.devices.clock.cmsdk import CLOCK_NS, identification
from rrgdb.board.devices.clock.countdown import Countdown
from rrgdb.board.devices.state import Field, StatefulDevice

ONE_SHOT, WIDE, PRESCALE, INTEN, PERIODIC, ENABLE = 0x01, 0x02, 0x0C, 0x20, 0x40, 0x80
_VALID = ONE_SHOT | WIDE | PRESCALE | INTEN | PERIODIC | ENABLE
_DIVISORS = (1, 16, 256, 256)
_LOW, _MASK = 0xFFFF, 0xFFFFFFFF
_MODULE = 0x20


def _fields(n: int) -> tuple[Field, ...]:
    return (
        Field(f"control{n}", 8, INTEN, mask=_VALID),
        Field(f"status{n}", 8, mask=1),
        Field(f"load{n}", 32),
        Field(f"value{n}", 32, _MASK),
        *Countdown.fields(f"count{n}_"),
    )


class _Module:
    """One of the two timers: it lives in fields of the device that end with its number."""

    def __init__(self, device: Any, n: int) -> None:
        self._device, self._n = device, n
        self.counter = Countdown(device, f"count{n}_", self._period, self._expired)

    def get(self, name: str) -> int:
        return int(getattr(self._device, f"{name}{self._n}"))

    def put(self, name: str, value: int) -> None:
        setattr(self._device, f"{name}{self._n}", value)

    def _period(self) -> int:
        return CLOCK_NS * _DIVISORS[(self.get("control") & PRESCALE) >> 2]

    def _expired(self) -> None:
        self.put("status", 1)
        self._device.update()

    def reset(self) -> None:
        self.counter.cancel()
        self.counter.set_limit(_LOW, reload=True)

    @property
    def masked(self) -> int:
        return self.get("status") if self.get("control") & INTEN else 0

    def _wide(self) -> int:
        return self.get("control") & WIDE

    def read(self, offset: int) -> int:
        match offset:
            case 0x00 | 0x18:
                load = self.get("load")
                if not self.get("control") & PERIODIC:
                    return load
                return self.counter.limit if self._wide() else load & ~_LOW | self.counter.limit & _LOW
            case 0x04:
                count = self.counter.count
                return count if self._wide() else self.get("value") & ~_LOW | count & _LOW
            case 0x08:
                return self.get("control")
            case 0x10:
                return self.get("status")
            case 0x14:
                return self.masked
        return 0

    def write(self, offset: int, value: int) -> None:
        counted = value if self._wide() else value & _LOW
        match offset:
            case 0x00:
                self.put("load", value)
                self.put("value", value)
                self._load(counted)
            case 0x18:
                self.put("load", value)
                if self.get("control") & PERIODIC:
                    self.counter.set_limit(counted)
            case 0x08:
                self._control(value & _VALID)
                self._device.update()
            case 0x0C:
                self.put("status", 0)
                self._device.update()

    def _load(self, value: int) -> None:
        control = self.get("control")
        if not control & PERIODIC:
            self.counter.set_count(value)
            return
        if not value:
            self.counter.stop()
        self.counter.set_limit(value, reload=True)
        if value and control & ENABLE:
            self.counter.run(one_shot=True)

    def _control(self, value: int) -> None:
        before, counter = self.get("control"), self.counter
        changed = before ^ value
        if changed & ~value & ENABLE:
            counter.stop()
        if changed & PRESCALE:
            counter.change_period(lambda: self.put("control", before & ~PRESCALE | value & PRESCALE))
        if changed & PERIODIC:
            self._change_mode(before, value)
        if changed & WIDE:
            self._change_size(value)
        if value & ENABLE:
            counter.run(one_shot=bool(value & ONE_SHOT))
        if changed & PRESCALE:
            counter.go_on()
        self.put("control", value)

    def _change_mode(self, before: int, value: int) -> None:
        if value & PERIODIC:
            limit = self.get("load")
        else:
            limit = self.counter.limit
            self.put("load", limit if before & WIDE else self.get("load") & ~_LOW | limit & _LOW)
            limit = _MASK
        self.counter.set_limit(limit if before & WIDE else limit & _LOW)

    def _change_size(self, value: int) -> None:
        count, limit = self.counter.count, self.counter.limit
        if value & WIDE:
            count = self.get("value") & ~_LOW | count & _LOW
        else:
            self.put("value", count)
            count &= _LOW
        if not value & PERIODIC:
            limit = _MASK if value & WIDE else _LOW
        elif value & WIDE:
            limit = self.get("load") & ~_LOW | limit & _LOW
        else:
            self.put("load", limit)
            limit &= _LOW
        self.counter.set_count(count)
        self.counter.set_limit(limit)


class CmsdkDualTimer(StatefulDevice):
    """Two timers that share an interrupt."""

    FIELDS = (*_fields(1), *_fields(2), Field("test", 8, mask=1), Field("outputs", 8, mask=3))

    test: int
    outputs: int

    def __init__(self, name: str, machine: Machine) -> None:
        self.name, self.machine = name, machine
        self._modules = (_Module(self, 1), _Module(self, 2))
        super().__init__(name, machine)

    def reset(self) -> None:
        super().reset()
        for module in self._modules:
            module.reset()

    def update(self) -> None:
        """The line follows the modules."""
        raised = self.outputs if self.test else any(module.masked for module in self._modules)
        self.machine.irq(self.machine.line_of(self.name), bool(raised))

    def read(self, offset: int, size: int) -> int:
        if offset < 2 * _MODULE:
            return self._modules[offset // _MODULE].read(offset % _MODULE)
        return self.test if offset == 0xF00 else identification(0x23, offset) or 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset < 2 * _MODULE:
            self._modules[offset // _MODULE].write(offset % _MODULE, value)
        elif offset == 0xF00:
            self.test = value & 1
            self.update()
        elif offset == 0xF04:
            self.outputs = value & 3
            self.update()
