"""Prints what src/base/random.cpp must draw, by Python's own arithmetic, for tests/cpp/tokens/workload_test.cpp.

python tests/golden/make_random_draws.py
"""

from __future__ import annotations

import math

MASK = (1 << 64) - 1


def mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Random:
    def __init__(self, seed: int, stream: int, index: int) -> None:
        self.key = mix((mix((mix(seed) + stream) & MASK) + index) & MASK)
        self.count = 0

    def bits(self) -> int:
        self.count += 1
        return mix((self.key + self.count - 1) & MASK)

    def unit(self) -> float:
        return (self.bits() >> 11) * 2.0**-53

    def normal(self) -> float:
        while True:
            x, y = 2 * self.unit() - 1, 2 * self.unit() - 1
            s = x * x + y * y
            if 0 < s < 1:
                return x * math.sqrt(-2 * math.log(s) / s)


def main() -> None:
    print("bits", [hex(Random(7, 1, 0).bits()), hex(Random(0, 0, 1).bits()), hex(Random(MASK, 2, 5).bits())])
    print("lognormal", [round(2500 * math.exp(1.3 * Random(7, 1, i).normal())) for i in range(8)])
    print("uniform", [1024 + math.floor(Random(7, 1, i).unit() * 7169) for i in range(8)])


if __name__ == "__main__":
    main()
