from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.errors import BadInputError
from tuning import objectives
from tuning.objectives import Constraint, Direction, Objective
from tuning.trials import OBSERVED, Trial, TrialState

_PROPERTY = settings(database=None, deadline=None)
_NAN, _INF = math.nan, math.inf

LOSS = Objective(metric="loss", direction="minimize")
ACCURACY = Objective(metric="accuracy", direction="maximize")


def trial(
    number: int,
    *values: float,
    state: TrialState = TrialState.SUCCEEDED,
    violations: tuple[float, ...] = (),
) -> Trial:
    return Trial(number, {"x": number}, state, values=values or None, violations=violations)


def loss(goal: Any = None, use: Any = "best") -> Objective:
    return Objective(metric="loss", direction="minimize", goal=goal, use=use)


def refused(
    given: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    metrics: Sequence[str] = ("loss", "accuracy"),
) -> BadInputError:
    with pytest.raises(BadInputError) as raised:
        objectives.check(given, constraints, metrics)
    assert raised.value.hint
    return raised.value


class TestForms:
    def test_null_is_left_out(self) -> None:
        given = {"metric": "loss", "direction": "minimize", "goal": None, "use": None}

        assert Objective.model_validate(given) == LOSS

    def test_what_is_left_out(self) -> None:
        assert (LOSS.goal, LOSS.use) == (None, "best")
        assert Constraint(metric="size", max=1).min is None

    @pytest.mark.parametrize(
        "wrong",
        [
            {"direction": None},
            {"direction": "down"},
            {"metric": None},
            {"use": "mean"},
            {"aim": 1},
        ],
    )
    def test_other_fields_and_words_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Objective.model_validate({"metric": "loss", "direction": "minimize", **wrong})

    @pytest.mark.parametrize("one", [loss(0.5, "last"), Constraint(metric="size", min=1, max=2.5)])
    def test_what_was_written_down_reads_the_same(self, one: Objective | Constraint) -> None:
        written = json.loads(json.dumps(one.model_dump(mode="json")))

        assert type(one).model_validate(written) == one

    @pytest.mark.parametrize("model", [Objective, Constraint])
    def test_every_field_is_described(self, model: type[Objective] | type[Constraint]) -> None:
        schema = model.model_json_schema()

        assert all(field["description"] for field in schema["properties"].values())

    @pytest.mark.parametrize("goal", ["abc", "0.5", True, False, [1]])
    def test_a_goal_that_is_no_number_is_refused(self, goal: object) -> None:
        with pytest.raises(BadInputError) as raised:
            loss(goal)

        assert raised.value.code == "GoalInvalid"
        assert "'loss'" in raised.value.message

    @pytest.mark.parametrize("word", ["min", "max"])
    @pytest.mark.parametrize("bound", ["abc", "0.5", True, [1]])
    def test_a_bound_that_is_no_number_is_refused(self, word: str, bound: object) -> None:
        with pytest.raises(BadInputError) as raised:
            Constraint.model_validate({"metric": "size", word: bound})

        assert raised.value.code == "ConstraintBoundInvalid"
        assert raised.value.message.startswith(f"The {word} of the constraint on 'size'")


class TestCheck:
    def test_takes_one(self) -> None:
        objectives.check([loss(goal=0)], [], ["loss"])

    def test_takes_several_and_constraints(self) -> None:
        constraints = [
            Constraint(metric="loss", max=1), Constraint(metric="size", min=0, max=0),
            Constraint(metric="size", min=-1),
        ]  # fmt: skip

        objectives.check([LOSS, ACCURACY], constraints, ["loss", "accuracy", "size"])

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ([], "ObjectiveMissing"),
            ([Objective(metric="los", direction="minimize")], "ObjectiveUnknown"),
            ([Objective(metric="", direction="minimize")], "ObjectiveUnknown"),
            ([LOSS, ACCURACY, LOSS], "ObjectiveTwice"),
            ([LOSS, Objective(metric="loss", direction="maximize")], "ObjectiveTwice"),
            ([loss(_NAN)], "GoalInvalid"),
            ([loss(_INF)], "GoalInvalid"),
            ([loss(-_INF)], "GoalInvalid"),
            ([loss(1e300)], "NumberTooLarge"),
            ([loss(-(10**400))], "NumberTooLarge"),
            ([loss(0.5), ACCURACY], "GoalWithSeveral"),
            ([ACCURACY, loss(0.5)], "GoalWithSeveral"),
        ],
    )
    def test_refuses_objectives(self, given: list[Objective], code: str) -> None:
        assert refused(given).code == code

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            (Constraint(metric="size", max=1), "ConstraintUnknown"),
            (Constraint(metric="loss"), "ConstraintWithoutBounds"),
            (Constraint(metric="loss", min=2, max=1), "ConstraintEmpty"),
            (Constraint(metric="loss", max=_NAN), "ConstraintBoundInvalid"),
            (Constraint(metric="loss", min=-_INF, max=1), "ConstraintBoundInvalid"),
            (Constraint(metric="loss", max=10**400), "NumberTooLarge"),
            (Constraint(metric="loss", min=-1e300), "NumberTooLarge"),
        ],
    )
    def test_refuses_constraints(self, given: Constraint, code: str) -> None:
        assert refused([LOSS], [Constraint(metric="loss", max=1), given]).code == code

    def test_names_the_metrics_that_there_are(self) -> None:
        error = refused([Objective(metric="los", direction="minimize")])

        assert error.message == "The metric 'los' of the objective is not among the metrics."
        assert error.hint == "There are: accuracy, loss."

    def test_where_there_are_no_metrics(self) -> None:
        assert refused([LOSS], metrics=()).hint == "Add it to metrics."


class TestValue:
    @pytest.mark.parametrize(
        ("direction", "use", "reports", "value"),
        [
            ("minimize", "best", [3, 1, 2], 1),
            ("maximize", "best", [1, 3, 2], 3),
            ("minimize", "last", [3, 1, 2], 2),
            ("maximize", "last", [1, 3, 2], 2),
            ("minimize", "best", [_NAN, 2, -_INF, 1, _INF], 1),
            ("maximize", "best", [_INF, 2, _NAN], 2),
            ("minimize", "last", [2, 1, _NAN], 1),
            ("maximize", "last", [2, 1, _INF], 1),
            ("minimize", "best", [], None),
            ("maximize", "last", [_NAN, _INF, -_INF], None),
        ],
    )
    def test_of_reports(
        self, direction: Direction, use: Any, reports: list[float], value: float | None
    ) -> None:
        objective = Objective(metric="loss", direction=direction, use=use)

        assert objectives.value(reports, objective) == value

    @given(
        reports=st.lists(st.floats()), direction=st.sampled_from(["minimize", "maximize"]),
        use=st.sampled_from(["best", "last"]),
    )  # fmt: skip
    @_PROPERTY
    def test_is_finite_and_was_reported(
        self, reports: list[float], direction: Direction, use: Any
    ) -> None:
        value = objectives.value(reports, Objective(metric="m", direction=direction, use=use))

        finite = [report for report in reports if math.isfinite(report)]
        assert (value is None) == (not finite)
        if value is not None:
            assert value in finite
            if use == "best":
                assert not any(
                    Objective(metric="m", direction=direction).better(one, than=value)
                    for one in finite
                )

    def test_each_objective_needs_one(self) -> None:
        observed = {"loss": [2.0, 1.0], "accuracy": [0.5, _NAN], "size": [9.0]}

        assert objectives.values(observed, [LOSS, ACCURACY]) == (1.0, 0.5)
        assert objectives.values(observed, [ACCURACY, LOSS]) == (0.5, 1.0)
        assert objectives.values({"loss": [1.0]}, [LOSS, ACCURACY]) is None
        assert objectives.values({"loss": [1.0], "accuracy": [_NAN]}, [LOSS, ACCURACY]) is None


class TestViolations:
    @pytest.mark.parametrize(
        ("low", "high", "reports", "violation"),
        [
            (None, 5, [9, 3], -2),
            (None, 5, [3, 9], 4),
            (None, 5, [5], 0),
            (2, None, [0], 2),
            (2, None, [7], -5),
            (2, None, [2], 0),
            (2, 5, [4], -1),
            (2, 5, [6], 1),
            (2, 5, [-1], 3),
            (2, 5, [6, _NAN, _INF], 1),
            (0.1 + 0.2, None, [0.3], 0.1 + 0.2 - 0.3),
        ],
    )
    def test_are_of_the_last_finite_report(
        self, low: float | None, high: float | None, reports: list[float], violation: float
    ) -> None:
        constraint = Constraint(metric="size", min=low, max=high)

        assert objectives.violations({"size": reports}, [constraint]) == (violation,)

    def test_come_in_the_order_of_the_constraints(self) -> None:
        constraints = [Constraint(metric="b", max=1), Constraint(metric="a", min=1)]

        assert objectives.violations({"a": [3.0], "b": [3.0]}, constraints) == (2.0, -2.0)
        assert objectives.violations({}, []) == ()

    @pytest.mark.parametrize("observed", [{}, {"size": []}, {"size": [_NAN, _INF]}])
    def test_are_not_known_without_a_finite_report(self, observed: dict[str, list[float]]) -> None:
        constraints = [Constraint(metric="loss", max=1), Constraint(metric="size", max=1)]

        assert objectives.violations({"loss": [0.0], **observed}, constraints) is None

    @given(
        value=st.floats(allow_nan=False, allow_infinity=False),
        bounds=st.tuples(st.floats(-9e18, 9e18), st.floats(-9e18, 9e18)).map(sorted),
    )
    @_PROPERTY
    def test_are_finite_and_above_zero_only_out_of_bounds(
        self, value: float, bounds: list[float]
    ) -> None:
        constraint = Constraint(metric="size", min=bounds[0], max=bounds[1])

        violation = constraint.violation(value)

        assert math.isfinite(violation)
        assert (violation <= 0) == (bounds[0] <= value <= bounds[1])


class TestReached:
    @pytest.mark.parametrize(
        ("direction", "value", "reached"),
        [
            ("minimize", 0.4, True),
            ("minimize", 0.5, True),
            ("minimize", 0.6, False),
            ("maximize", 0.4, False),
            ("maximize", 0.5, True),
            ("maximize", 0.6, True),
        ],
    )
    def test_at_the_goal_or_beyond(
        self, direction: Direction, value: float, reached: bool
    ) -> None:
        objective = Objective(metric="m", direction=direction, goal=0.5)

        assert objectives.reached(trial(0, value), [objective]) == reached

    @pytest.mark.parametrize("state", TrialState)
    def test_only_by_what_was_observed(self, state: TrialState) -> None:
        assert objectives.reached(trial(0, 0.0, state=state), [loss(1)]) == (state in OBSERVED)

    def test_not_without_a_value(self) -> None:
        assert not objectives.reached(trial(0), [loss(1)])

    def test_not_without_a_goal(self) -> None:
        assert not objectives.reached(trial(0, 0.0), [LOSS])
        assert not objectives.reached(trial(0, 0.0, 1.0), [LOSS, ACCURACY])

    @pytest.mark.parametrize(
        ("violations", "reached"), [((0.0, -1.0), True), ((-1.0, 1e-9), False)]
    )
    def test_only_within_the_constraints(
        self, violations: tuple[float, ...], reached: bool
    ) -> None:
        assert objectives.reached(trial(0, 0.0, violations=violations), [loss(1)]) == reached


class TestBest:
    def test_of_none(self) -> None:
        assert objectives.best([], [LOSS]) is None

    @pytest.mark.parametrize(("objective", "number"), [(LOSS, 1), (ACCURACY, 3)])
    def test_by_direction(self, objective: Objective, number: int) -> None:
        found = objectives.best([trial(1, 1), trial(2, 2), trial(3, 3)], [objective])

        assert found is not None
        assert found.number == number

    @pytest.mark.parametrize("objective", [LOSS, ACCURACY])
    def test_on_a_tie_the_first(self, objective: Objective) -> None:
        found = objectives.best([trial(7, 1), trial(2, 1), trial(5, 1)], [objective])

        assert found is not None
        assert found.number == 2

    def test_only_what_counts(self) -> None:
        others = [state for state in TrialState if state not in OBSERVED]
        trials = [
            *(trial(number, -1, state=state) for number, state in enumerate(others)),
            trial(10),
            trial(11, 0, violations=(0.1,)),
            trial(12, 2),
            trial(13, 1, state=TrialState.EARLY_STOPPED, violations=(0.0,)),
        ]

        found = objectives.best(trials, [LOSS])

        assert found is not None
        assert found.number == 13
        assert objectives.best(trials[:-2], [LOSS]) is None

    def test_of_several_objectives_there_is_none(self) -> None:
        assert objectives.best([trial(0, 1, 1)], [LOSS, ACCURACY]) is None


class TestFront:
    def test_of_two(self) -> None:
        trials = [
            trial(4, 1, 0.5),  # as good as 2
            trial(0, 3, 0.9),
            trial(1, 2, 0.4),  # worse than 2
            trial(2, 1, 0.5),
            trial(3, 3, 0.8),  # worse than 0
            trial(5, 2, 0.7),
            trial(6, 0, 1, violations=(1.0,)),
            trial(7, 0, 1, state=TrialState.FAILED),
            trial(8),
        ]

        assert [one.number for one in objectives.front(trials, [LOSS, ACCURACY])] == [0, 2, 4, 5]

    def test_of_none(self) -> None:
        assert objectives.front([], [LOSS, ACCURACY]) == []

    @given(
        values=st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=20),
        directions=st.tuples(*[st.sampled_from(["minimize", "maximize"])] * 3),
        order=st.randoms(use_true_random=False),
    )
    @_PROPERTY
    def test_is_what_no_other_beats(
        self, values: list[tuple[float, ...]], directions: tuple[Direction, ...], order: Any
    ) -> None:
        wanted = [
            Objective(metric=str(place), direction=direction)
            for place, direction in enumerate(directions)
        ]
        trials = [trial(number, *each) for number, each in enumerate(values)]

        def beats(one: Trial, other: Trial) -> bool:
            assert one.values is not None
            assert other.values is not None
            pairs = list(zip(wanted, one.values, other.values, strict=True))
            return any(each.better(a, b) for each, a, b in pairs) and not any(
                each.better(b, a) for each, a, b in pairs
            )

        undefeated = [one for one in trials if not any(beats(other, one) for other in trials)]
        order.shuffle(trials)

        assert objectives.front(trials, wanted) == undefeated
        assert bool(undefeated) == bool(trials)

    @given(values=st.lists(st.integers(0, 3).map(float), min_size=1))
    @_PROPERTY
    def test_of_one_objective_is_every_best(self, values: list[float]) -> None:
        trials = [trial(number, value) for number, value in enumerate(values)]

        front = objectives.front(trials, [LOSS])

        assert [one.number for one in front] == [
            number for number, value in enumerate(values) if value == min(values)
        ]
        assert front[0] == objectives.best(trials, [LOSS])
