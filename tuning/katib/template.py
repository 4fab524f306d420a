"""Trial template of an Experiment: its script and the names of hyperparameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from infra.errors import BadInputError
from tuning.katib import command as commands
from tuning.katib import pods
from tuning.katib.command import ScriptCommand
from tuning.katib.document import Section, Tree, finite
from tuning.katib.metrics import Say
from tuning.katib.pods import MARK, TrialContainer
from tuning.space import Value

_PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^}]+)\}")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")  # what a hyperparameter may be called
_COMPUTED = re.compile(r"\$[({\w]|\{\{")  # by Katib, a shell or a workflow
_CONDITIONS = ("successCondition", "failureCondition")
_SECRET_NAME = re.compile(
    r"(?i)(?:^|[-_.])(?:token|passw(?:or)?d|secret|credentials?|(?:api|access|secret)[-_]?key)$"
)
_SECRET_VALUE = re.compile(r"://[^/\s]*:[^/\s]*@")


@dataclass
class TrialTemplate:
    """Converted trial template.

    Attributes:
        names: The script's name of each parameter, by its name in Katib, where it is known.
        hyperparameters: The fixed hyperparameters of every trial.
        parameters: The flow's other parameters.
    """

    names: dict[str, str] = field(default_factory=dict)
    hyperparameters: dict[str, Value] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


def read(spec: Section, names: Sequence[str], say: Say) -> TrialTemplate:
    """Convert a trial template.

    Args:
        spec: The Experiment's spec.
        names: The names of its parameters.
        say: Called with each sentence about what was not converted.

    Raises:
        BadInputError: If there is no template, or a field is not what it must be.
    """
    section = spec.section("trialTemplate")
    section.ignore("retain", "primaryPodLabels")
    if [one for one in _CONDITIONS if section.text(one)]:
        say("The template's conditions: a trial succeeds when its script ends with 0.")
    references = {}
    for one in section.sections("trialParameters"):
        one.ignore("description")
        references[one.required("name")] = one.text("reference")
    primary = section.text("primaryContainerName")
    trial = section.tree("trialSpec")
    if isinstance(trial, dict):
        return _read(trial, primary, _TrialParameters(references, names), say)
    configuration = section.section("configMap")
    if not configuration.text("configMapName"):
        raise BadInputError(
            "The Experiment has no spec.trialTemplate.trialSpec.", "Give what a trial starts.",
            code="KatibFieldMissing",
        )  # fmt: skip
    configuration.ignore("configMapNamespace", "templatePath")
    say(
        f"{section.place('configMap')}: the template lies in "
        f"{configuration.text('configMapName')!r}: give algorithm.uri, algorithm.entry_point and "
        "resources, and call the parameters as the script's options are called."
    )
    return TrialTemplate()


@dataclass(frozen=True)
class _TrialParameters:
    """Which parameter each of the template's is.

    Attributes:
        by_name: The parameter, or what else of the trial, by the template's name for it.
        names: What the parameters are called.
    """

    by_name: Mapping[str, str]
    names: Sequence[str]

    def whole(self, text: str) -> str | None:
        """The parameter whose value ``text`` is, and nothing besides."""
        match = _PLACEHOLDER.fullmatch(text)
        reference = self.by_name.get(match[1]) if match else None
        return reference if reference in self.names else None


def _read(
    trial: Mapping[str, Tree], primary: str, references: _TrialParameters, say: Say
) -> TrialTemplate:
    found = list(pods.containers(dict(trial)))
    container = pods.choose(found, primary)
    if container is None:
        say(
            f"spec.trialTemplate.trialSpec: no container of this {trial.get('kind')} is seen to "
            "take the parameters: give algorithm.uri, algorithm.entry_point and resources."
        )
        return TrialTemplate()
    others = dict.fromkeys(one.name for one in found if one.name != container.name)
    if others:
        say(f"The containers {', '.join(others)}: they are not started.")
    template = TrialTemplate()
    resources = pods.resources(trial, container, say)
    command = commands.parse(container.words, MARK)
    _say_algorithm(command, container.image, say)
    if command.torchrun:
        resources["torchrun"] = True
        resources |= {"processes_per_node": command.processes} if command.processes else {}
    minutes = pods.deadline_minutes(trial, container)
    template.parameters = {
        **({"resources": resources} if resources else {}),
        **({"trial_max_minutes": minutes} if minutes else {}),
    }
    if pods.retries(trial):
        say("The backoffLimit: a trial that fails is not started again.")
    _options(command, references, template, say)
    _name(references, template, say)
    _say_environment(container, references, template, say)
    for name, reference in references.by_name.items():
        if reference not in references.names:
            say(f"The template's {name!r}: its {reference!r} is not a parameter.")
    return template


def _say_algorithm(command: ScriptCommand, image: str, say: Say) -> None:
    where = f"in the image {image}" if image else "in an image"
    path = PurePosixPath(command.script)
    if command.script:
        copied = f" of {path.parent}" if path.is_absolute() else ""
        entry = path.name if path.is_absolute() else str(path)
        what = f"a folder with a copy{copied}, and algorithm.entry_point, {entry}"
    elif command.module:
        what = f"a folder, and algorithm.entry_point, a script in it like {command.module}"
    else:
        what = "a folder with a copy, and algorithm.entry_point, a script in it"
    say(f"algorithm: its files lie {where}: give algorithm.uri, {what}.")
    if command.launcher:
        say(f"The launcher {command.launcher}: the script is started as it is, on each node.")
    if command.others:
        say(f"The shell's other commands, {command.others} of them: only the script is run.")


def _options(
    command: ScriptCommand, references: _TrialParameters, template: TrialTemplate, say: Say
) -> None:
    """Sort the script's options into names of parameters and fixed hyperparameters."""
    for name, value in command.options.items():
        reference = references.whole(value)
        if reference and reference not in template.names and _KEY.fullmatch(name):
            template.names[reference] = name
        elif _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
            say(f"The option --{name}: it looks like a secret, which no parameter may hold.")
        elif _COMPUTED.search(value) or not _KEY.fullmatch(name):
            say(f"The option --{name} {value}: an option here is one hyperparameter's value.")
        else:
            template.hyperparameters[name] = _constant(value)
            if value.startswith("/"):
                say(f"The option --{name} {value}: this is a path in the image; fix it.")
    for word in command.rest:
        shown = "a secret" if _SECRET_VALUE.search(word) else word
        say(f"The argument {shown}: a script here is given --NAME VALUE alone.")


def _name(references: _TrialParameters, template: TrialTemplate, say: Say) -> None:
    """Make names unique, and report new or unknown ones."""
    for name in references.names:
        called = template.names.get(name)
        if called is None:
            say(f"Parameter {name!r}: it is given as --{name}, and was not an option before.")
        elif _variable(called) in {
            _variable(other)
            for other in references.names
            if other != name and other not in template.names
        }:
            del template.names[name]
            say(f"Parameter {name!r}: it keeps its name, as another is called {called!r}.")
        elif called != name:
            say(f"Parameter {name!r}: it is called {called!r} here, as the script's option is.")
    varied = {_variable(template.names.get(name, name)) for name in references.names}
    for name in [one for one in template.hyperparameters if _variable(one) in varied]:
        del template.hyperparameters[name]
        say(f"The option --{name}: it is left out, as a parameter is called so.")


def _variable(name: str) -> str:
    """What of a hyperparameter's name is left in that of its environment variable."""
    return re.sub(r"\W", "_", name).upper()


def _say_environment(
    container: TrialContainer, references: _TrialParameters, template: TrialTemplate, say: Say
) -> None:
    for variable, value in _environment(container):
        reference = references.whole(value)
        if reference:
            name = template.names.get(reference, reference)
            say(f"The environment variable {variable}: it is EM_HP_{_variable(name)} here.")
        else:
            say(f"The environment variable {variable}: it is not set; give a hyperparameter.")


def _environment(container: TrialContainer) -> Iterator[tuple[str, str]]:
    variables = container.fields.get("env")
    for one in variables if isinstance(variables, list) else ():
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            yield str(one["name"]), str(one.get("value") or "")


def _constant(text: str) -> Value:
    """``text``, as a number where that is written as the text is."""
    if re.fullmatch(r"0|-?[1-9]\d{0,17}", text):
        return int(text)
    number = finite(text)
    return number if number is not None and str(number) == text else text
