"""The engine, with leaves that are functions of this process: what runs when."""

import threading
from concurrent.futures import Future

import pytest

from pipelines.artifacts import Bundle
from pipelines.execution import Execution
from pipelines.states import TaskResult, TaskState
from tests.pipelines import engine
from tests.pipelines.engine import (
    NO,
    OUT,
    YES,
    Dag,
    Node,
    Of,
    Threads,
    Work,
    failing,
    run,
)


class TestOrder:
    def test_a_task_begins_when_all_that_it_waits_for_has_ended(self):
        end, work = run(
            Dag(
                {
                    "d": Node(after=("b", "c")),
                    "c": Node(inputs={"x": Of("a")}),
                    "b": Node(after=("a",)),
                    "a": Node(),
                },
                {"o": Of("d")},
            )
        )
        assert work.began == ["a", "b", "c", "d"]
        assert (end.state, end.outputs.parameters) == ("SUCCEEDED", {"o": "d()"})

    def test_one_that_waits_for_a_dag_waits_for_all_in_it(self):
        inner = Dag({"x": Node(), "y": Node(after=("x",))})
        _, work = run(Dag({"a": Node(runs=inner), "b": Node(after=("a",))}))
        assert work.began == ["a/x", "a/y", "b"]

    def test_an_empty_dag_is_over_at_once(self):
        _, work = run(Dag({"a": Node(runs=Dag({})), "b": Node(after=("a",))}))
        assert work.states == {"a": "SUCCEEDED", "b": "SUCCEEDED"}

    def test_it_is_the_same_each_time(self):
        tasks = {name: Node() for name in "hgfedcba"}
        told = [[(node.path, node.state) for node in run(Dag(tasks))[1].told] for _ in range(3)]
        assert told[0] == told[1] == told[2]
        assert [path for path, state in told[0] if state == "RUNNING"] == sorted(tasks)

    def test_a_task_is_told_of_as_it_goes(self):
        _, work = run(Dag({"a": Node(), "b": Node(after=("a",))}))
        assert [(node.path, str(node.state)) for node in work.told] == [
            ("a", "WAITING"), ("b", "WAITING"), ("a", "RUNNING"), ("a", "SUCCEEDED"),
            ("b", "RUNNING"), ("b", "SUCCEEDED"),
        ]  # fmt: skip
        last = work.nodes["b"]
        assert 0 < last.began <= last.ended

    def test_depth_costs_no_stack(self):
        dag = Dag({"leaf": Node()}, {"o": Of("leaf")})
        for _ in range(50):
            dag = Dag({"in": Node(runs=dag)}, {"o": Of("in", "o")})
        end, work = run(dag)
        deepest = "in/" * 50 + "leaf"
        assert end.outputs.parameters == {"o": f"{deepest}()"}
        assert work.began == [deepest]

    def test_length_costs_no_stack(self):
        tasks = {f"t{n:04}": Node(after=(f"t{n - 1:04}",) if n else ()) for n in range(3000)}
        _, work = run(Dag(tasks))
        assert work.began == sorted(tasks)


class TestLimits:
    """Leaves that go on only when so many of them run."""

    def barred(self, parties, **told):
        barrier = threading.Barrier(parties, timeout=30)

        def does(leaf):
            barrier.wait()
            return engine.says(leaf)

        return Threads(does, **told)

    def test_leaves_run_at_once_up_to_the_limit_of_the_run(self):
        work = self.barred(3)
        loop = Node(runs=Dag({"x": Node()}), over=[1, 2, 3])
        tasks = {"l": loop, "a": Node(), "b": Node(), "d": Node(runs=Dag({"y": Node()}))}
        assert engine.execute(Dag(tasks), work, parallel=3).state == "SUCCEEDED"
        assert work.most == 3

    @pytest.mark.parametrize("parallel", [1, 3])
    def test_no_leaf_begins_beyond_it(self, parallel):
        class Counted(Work):
            """Knows how many leaves the engine takes for running."""

            running = most = 0

            def submit(self, leaf):
                self.running += 1
                self.most = max(self.most, self.running)
                return super().submit(leaf)

            def on_node_changed(self, node):
                super().on_node_changed(node)
                self.running -= node.kind == "task" and node.state == TaskState.SUCCEEDED

        work = Counted()
        loop = Node(runs=Dag({"x": Node()}), over=list(range(9)))
        tasks = {"l": loop, "a": Node(), "d": Node(runs=Dag({"y": Node(), "z": Node()}))}
        engine.execute(Dag(tasks), work, parallel=parallel)
        assert (len(work.began), work.most) == (12, parallel)

    def test_iterations_up_to_the_limit_of_their_loop(self):
        work = self.barred(2)
        loop = Node(runs=Dag({"x": Node(), "y": Node(after=("x",))}), over=[1] * 4, limit=2)
        assert engine.execute(Dag({"l": loop}), work).state == "SUCCEEDED"
        assert work.most == 2

    def test_a_loop_in_a_loop_has_its_own_limit_in_each_iteration(self):
        work = self.barred(6)
        inner = Node(runs=Dag({"x": Node()}), over=[1] * 6, limit=3)
        outer = Node(runs=Dag({"i": inner}), over=[1] * 4, limit=2)
        assert engine.execute(Dag({"o": outer}), work).state == "SUCCEEDED"
        assert work.most == 6

    def test_all_of_them_without_one(self):
        work = self.barred(20)
        loop = Node(runs=Dag({"x": Node()}), over=list(range(20)))
        assert engine.execute(Dag({"l": loop}), work).state == "SUCCEEDED"
        assert work.most == 20

    def test_iterations_that_end_together_make_room_for_as_many_as_are_left(self):
        class Pairs(Work):
            """Leaves that end two by two."""

            def submit(self, leaf):
                self.began.append(leaf.path)
                held.append(Future())
                if len(held) % 2 == 0 or len(held) == 5:
                    for future in held[-2 if len(held) % 2 == 0 else -1 :]:
                        future.set_result(TaskResult(TaskState.SUCCEEDED))
                return held[-1]

        held = []
        loop = Node(runs=Dag({"x": Node()}), over=list(range(5)), limit=2)
        work = Pairs()
        assert engine.execute(Dag({"l": loop}), work).state == "SUCCEEDED"
        assert work.began == [f"l/{n}/x" for n in range(5)]

    def test_the_next_iteration_begins_though_one_has_failed(self):
        loop = Node(runs=Dag({"x": Node()}), over=[1, 2, 3], limit=1)
        end, work = run(Dag({"l": loop}), failing("l/0/x"))
        assert work.began == ["l/0/x", "l/1/x", "l/2/x"]
        assert end.reason == "l: 1 of 3 iterations did not succeed: [0] x: l/0/x broke."


class TestFailure:
    def test_what_needs_it_is_left_out_and_all_else_runs(self):
        dag = Dag(
            {"a": Node(), "b": Node(after=("a",)), "c": Node(inputs={"x": Of("b")}), "d": Node()}
        )
        end, work = run(dag, failing("a"))
        assert work.states == {"a": "FAILED", "b": "OMITTED", "c": "OMITTED", "d": "SUCCEEDED"}
        assert (end.state, end.reason) == ("FAILED", "a: a broke.")
        assert work.nodes["b"].reason == "a did not succeed."

    def test_a_dag_fails_with_what_is_in_it(self):
        inner = Dag({"x": Node(), "y": Node()})
        end, work = run(Dag({"d": Node(runs=inner), "e": Node(after=("d",))}), failing("d/x"))
        assert work.states["d"] == "FAILED"
        assert work.states["d/y"] == "SUCCEEDED"
        assert work.states["e"] == "OMITTED"
        assert end.reason == "d: x: d/x broke."

    def test_any_error_of_a_leaf_is_its_own(self):
        def does(leaf):
            raise ZeroDivisionError("by nothing")

        end, _ = run(Dag({"a": Node()}), does)
        assert end.reason == "a: ZeroDivisionError('by nothing')"

    def test_an_input_that_is_not_there_is_told(self):
        inner = Dag({"x": Node(condition=NO)}, {"o": Of("x")})
        end, work = run(Dag({"d": Node(runs=inner), "e": Node(inputs={"in": Of("d", "o")})}))
        assert work.states["e"] == "FAILED"
        assert "e has no value for its parameter in" in end.reason

    def test_a_task_that_runs_regardless_takes_its_default(self):
        cautious = Node(inputs={"x": Of("a")}, defaults={"x": "mine"}, regardless=True)
        end, work = run(Dag({"a": Node(), "b": cautious}), failing("a"))
        assert work.nodes["b"].outputs.parameters == {OUT: "b(x=mine)"}
        assert end.state == "FAILED"

    def test_one_without_a_default_cannot(self):
        needy = Node(inputs={"x": Of("a")}, regardless=True)
        _, work = run(Dag({"a": Node(), "b": needy}), failing("a"))
        assert work.states["b"] == "FAILED"

    def test_what_waits_for_a_task_that_runs_regardless_runs_as_well(self):
        dag = Dag({"a": Node(), "b": Node(after=("a",), regardless=True), "c": Node(after=("b",))})
        assert run(dag, failing("a"))[1].states["c"] == "SUCCEEDED"


class TestConditions:
    def test_a_branch_that_is_not_taken_is_skipped_with_what_needs_its_outputs(self):
        inner = Dag({"x": Node()}, {"o": Of("x")})
        dag = Dag(
            {
                "no": Node(runs=inner, condition=NO),
                "needs": Node(inputs={"in": Of("no", "o")}),
                "needs-that": Node(inputs={"in": Of("needs")}),
                "after": Node(after=("no",)),
                "may": Node(inputs={"in": Of("no", "o")}, defaults={"in": "d"}),
                "may-without": Node(inputs={"in": Of("no", "o")}, defaults={"in": None}),
            }
        )
        end, work = run(dag)
        assert work.states == {
            "no": "SKIPPED", "needs": "SKIPPED", "needs-that": "SKIPPED", "after": "SUCCEEDED",
            "may": "SUCCEEDED", "may-without": "SUCCEEDED",
        }  # fmt: skip
        assert work.nodes["may"].outputs.parameters == {OUT: "may(in=d)"}
        assert work.nodes["may-without"].outputs.parameters == {OUT: "may-without()"}
        assert end.state == "SUCCEEDED"

    def test_what_cannot_be_evaluated_fails_and_is_not_false(self):
        dag = Dag(
            {"a": Node(inputs={"x": "many"}, condition="int(inputs.parameter_values['x'])>1")}
        )
        end, work = run(dag)
        assert work.states == {"a": "FAILED"}
        assert "int(inputs.parameter_values['x'])>1" in end.reason

    def test_it_is_about_what_the_task_is_given(self):
        said = "inputs.parameter_values['x'] == 'a()'"
        dag = Dag({"a": Node(), "b": Node(inputs={"x": Of("a")}, condition=said)})
        assert run(dag)[1].states["b"] == "SUCCEEDED"

    def test_a_skipped_task_hands_nothing_on(self):
        dag = Dag({"a": Node(condition=NO)}, {"o": Of("a")})
        assert run(dag)[0].outputs.parameters == {}

    @pytest.mark.parametrize(("first", "chosen"), [(YES, "one/x()"), (NO, "two/x()")])
    def test_of_alternatives_the_one_that_came_about_is_handed_on(self, first, chosen):
        branch = Dag({"x": Node()}, {"o": Of("x")})
        dag = Dag(
            {
                "one": Node(runs=branch, condition=first),
                "two": Node(runs=branch, condition=NO if first == YES else YES),
            },
            {"o": (Of("one", "o"), Of("two", "o"))},
        )
        assert run(dag)[0].outputs.parameters == {"o": chosen}

    def test_none_of_them_is_a_failure(self):
        branches = {name: Node(condition=NO) for name in ("one", "two")}
        end, _ = run(Dag({"d": Node(runs=Dag(branches, {"o": (Of("one"), Of("two"))}))}))
        assert end.state == "FAILED"
        assert "None of one, two has run" in end.reason


def test_a_run_is_given_its_arguments():
    dag = engine.pipeline(Dag({"a": Node(inputs={"x": 1})}, {"o": Of("a")}))
    end = Execution(dag, Work(), parallel=1, now=lambda: 7.0).run(Bundle({"unused": 2}))
    assert end.outputs.parameters == {"o": "a(x=1)"}
