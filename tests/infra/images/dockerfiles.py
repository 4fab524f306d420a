"""A Dockerfile, as far as its rules can be checked without Docker."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """What stands between one FROM and the next."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == instruction]


@dataclass
class Dockerfile:
    """Its arguments before the first stage, and its stages."""

    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    def below(self, variant: dict[str, str]) -> list[Stage]:
        """The last stage and those it stands on, for some arguments; the last one first."""
        found, known = [self.last], {stage.name: stage for stage in self.stages}
        while base := known.get(_filled(found[-1].base, {**self.arguments, **variant})):
            found.append(base)
        return found

    def root(self, **variant: str) -> str:
        """The image of somebody else's that the last stage stands on."""
        return _filled(self.below(variant)[-1].base, {**self.arguments, **variant})


def read(path: Path) -> Dockerfile:
    """Read one; each instruction on one line, without comments."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word:
            continue
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        elif not stages:
            assert word == "ARG", line
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            stages[-1].instructions.append((word, rest))
    return Dockerfile(arguments, stages)


def _filled(text: str, arguments: dict[str, str]) -> str:
    """With ``${NAME}`` and ``${NAME:+WORD}`` replaced, as Docker replaces them."""
    for name, value in arguments.items():
        text = text.replace(f"${{{name}:+@${{{name}}}}}", f"@{value}" if value else "")
        text = text.replace(f"${{{name}}}", value)
    assert "$" not in text, text
    return text
