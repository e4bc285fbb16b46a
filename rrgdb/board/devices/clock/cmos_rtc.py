"""Real-time clock and CMOS RAM of the PC (Motorola MC146818A data sheet) at I/O ports 0x70 and 0x71.

No alarm, periodic or update interrupt is raised; their enable bits are stored.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from rrgdb.board.devices.state import Buffer, Field, StatefulDevice

CMOS_BYTES = 128
REG_A, REG_B, REG_C, REG_D = 0x0A, 0x0B, 0x0C, 0x0D
SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY = 0, 2, 4, 6, 7, 8, 9, 0x32
CLOCK = (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY)
A_UIP, B_SET, B_BINARY, B_24H, D_VALID, HOUR_PM = 0x80, 0x80, 0x04, 0x02, 0x80, 0x80
UPDATE_NS = 244_000
"""update-in-progress shows this long before the seconds change"""
FIRST = datetime(1, 1, 1)
UNIX_EPOCH_S = 719_162 * 86_400
"""from FIRST to 1970, in seconds"""
SPAN_S = 146_097 * 86_400 * 24
"""9,600 years in seconds: whole Gregorian cycles, so folding keeps the weekday and the year within 1-9600"""
RESET = {REG_A: 0x26, REG_B: B_24H, REG_D: D_VALID, 0x15: 640 & 0xFF, 0x16: 640 >> 8}


class CmosRtc(StatefulDevice):
    """Offset 0: index (write only), offset 1: data."""

    FIELDS = (Field("index", 8, mask=0x7F), Field("offset_s", 64))
    BUFFERS = (Buffer("ram", CMOS_BYTES),)

    index: int
    offset_s: int
    ram: bytearray

    def reset(self) -> None:
        super().reset()
        self.ram = bytearray(CMOS_BYTES)
        for register, value in RESET.items():
            self.ram[register] = value

    def _now_ns(self) -> int:
        return self.machine.host.wall_clock_ns(self.name)

    def _latch(self) -> None:
        """Copy the running clock to the clock registers."""
        seconds = (self._now_ns() // 1_000_000_000 + UNIX_EPOCH_S + self.offset_s) % SPAN_S
        now = FIRST + timedelta(seconds=seconds)
        hour = self._encode(now.hour)
        if not self.ram[REG_B] & B_24H:
            hour = self._encode((now.hour + 11) % 12 + 1) | (HOUR_PM if now.hour >= 12 else 0)
        self.ram[SECONDS] = self._encode(now.second)
        self.ram[MINUTES] = self._encode(now.minute)
        self.ram[HOURS] = hour
        self.ram[WEEKDAY] = self._encode(now.isoweekday() % 7 + 1)
        self.ram[DAY] = self._encode(now.day)
        self.ram[MONTH] = self._encode(now.month)
        self.ram[YEAR] = self._encode(now.year % 100)
        self.ram[CENTURY] = self._encode(now.year // 100)

    def _set_clock(self) -> None:
        """Run on from the clock registers; what is no date is left as it was."""
        hour = self._decode(self.ram[HOURS])
        if not self.ram[REG_B] & B_24H:
            hour = self._decode(self.ram[HOURS] & ~HOUR_PM) % 12 + (12 if self.ram[HOURS] & HOUR_PM else 0)
        try:
            then = datetime(
                self._decode(self.ram[CENTURY]) * 100 + self._decode(self.ram[YEAR]),
                self._decode(self.ram[MONTH]),
                self._decode(self.ram[DAY]),
                hour,
                self._decode(self.ram[MINUTES]),
                self._decode(self.ram[SECONDS]),
            )
        except ValueError:
            return
        seconds = (then - FIRST) // timedelta(seconds=1) - UNIX_EPOCH_S
        self.offset_s = (seconds - self._now_ns() // 1_000_000_000) % SPAN_S

    def _encode(self, value: int) -> int:
        return value if self.ram[REG_B] & B_BINARY else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        return value if self.ram[REG_B] & B_BINARY else (value >> 4) * 10 + (value & 0x0F)

    def read(self, offset: int, size: int) -> int:
        if offset != 1:
            return 0xFF if offset == 0 else 0
        if self.index in CLOCK and not self.ram[REG_B] & B_SET:
            self._latch()
        if self.index == REG_A:
            updating = self._now_ns() % 1_000_000_000 >= 1_000_000_000 - UPDATE_NS
            return self.ram[REG_A] | (A_UIP if updating and not self.ram[REG_B] & B_SET else 0)
        return self.ram[self.index]

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        if offset == 0:
            self.index = value & 0x7F
        elif offset == 1:
            self._write_data(value)

    def _write_data(self, value: int) -> None:
        running = not self.ram[REG_B] & B_SET
        if self.index in (REG_C, REG_D):
            return
        if self.index == REG_A:
            self.ram[REG_A] = value & ~A_UIP
        elif self.index == REG_B:
            if running:
                self._latch()
            self.ram[REG_B] = value
            if not running and not value & B_SET:
                self._set_clock()
        elif self.index in CLOCK and running:
            self._latch()
            self.ram[self.index] = value
            self._set_clock()
        else:
            self.ram[self.index] = value

    def check(self, values: dict[str, int], buffers: dict[str, bytes]) -> None:
        ram = buffers["ram"]
        if len(ram) != CMOS_BYTES:
            raise ValueError(f"{self.name}: ram has {len(ram)} bytes, expected {CMOS_BYTES}")
        if ram[REG_A] & A_UIP or ram[REG_C] or ram[REG_D] != D_VALID:
            raise ValueError(f"{self.name}: register A, C or D holds bits that cannot be written")
        if values["offset_s"] >= SPAN_S:
            raise ValueError(f"{self.name}: offset_s is {values['offset_s']}, expected less than {SPAN_S}")
