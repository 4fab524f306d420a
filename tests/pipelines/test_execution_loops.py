"""The engine, with leaves that are functions of this process: loops."""

import threading

from infra.errors import ModelyardError
from tests.pipelines import engine
from tests.pipelines.engine import (
    OUT,
    Dag,
    Given,
    Node,
    Of,
    Threads,
    failing,
    run,
)


class TestLoops:
    def test_what_iterations_hand_on_is_collected_in_their_order(self):
        waits = {n: threading.Event() for n in range(3)}

        def does(leaf):  # the last one ends first
            number = int(leaf.path.split("/")[1])
            if number < 2:
                assert waits[number + 1].wait(30)
            waits[number].set()
            return number

        body = Dag({"x": Node(inputs={"i": Given("item")})}, {"o": Of("x")})
        work = Threads(does)
        dag = Dag({"l": Node(runs=body, over=[5, 6, 7])}, {"o": Of("l", "o")})
        assert engine.execute(dag, work).outputs.parameters == {"o": [0, 1, 2]}

    def test_over_nothing(self):
        body = Dag({"x": Node()}, {"o": Of("x")})
        dag = Dag({"l": Node(runs=body, over=[]), "a": Node(inputs={"n": Of("l", "o")})})
        _, work = run(dag)
        assert work.began == ["a"]
        assert work.nodes["a"].outputs.parameters == {OUT: "a(n=[])"}

    def test_over_a_list_that_a_task_makes_also_as_text(self):
        body = Dag({"x": Node(inputs={"i": Given("item")})}, {"o": Of("x")})
        for made in ([1, "b"], '[1, "b"]'):
            loop = Node(runs=body, inputs={"rows": Of("a")}, over="rows")
            end, _ = run(
                Dag({"a": Node(), "l": loop}, {"o": Of("l", "o")}),
                lambda leaf, made=made: made if leaf.path == "a" else leaf.inputs.parameters["i"],
            )
            assert end.outputs.parameters == {"o": [1, "b"]}

    def test_over_what_is_no_list_fails(self):
        loop = Node(runs=Dag({"x": Node()}), inputs={"rows": Of("a")}, over="rows")
        end, work = run(Dag({"a": Node(), "l": loop}))
        assert work.states["l"] == "FAILED"
        assert "should be a list" in end.reason

    def test_iterations_that_skip_what_is_collected_are_left_out(self):
        picked = "inputs.parameter_values['i'] != 2"
        body = Dag({"x": Node(inputs={"i": Given("item")}, condition=picked)}, {"o": Of("x")})
        dag = Dag({"l": Node(runs=body, over=[1, 2, 3])}, {"o": Of("l", "o")})
        end, _ = run(dag, lambda leaf: leaf.inputs.parameters["i"])
        assert end.outputs.parameters == {"o": [1, 3]}

    def test_nothing_is_collected_of_a_loop_that_failed(self):
        body = Dag({"x": Node()}, {"o": Of("x")})
        reader = Node(inputs={"n": Of("l", "o")}, defaults={"n": "none"}, regardless=True)
        _, work = run(Dag({"l": Node(runs=body, over=[1, 2]), "a": reader}), failing("l/1/x"))
        assert work.nodes["a"].outputs.parameters == {OUT: "a(n=none)"}

    def test_loops_in_loops_make_lists_of_lists(self):
        body = Dag({"x": Node(inputs={"i": Given("item"), "j": Given("outer")})}, {"o": Of("x")})
        inner = Node(runs=body, inputs={"outer": Given("item")}, over=[1, 2])
        dag = Dag(
            {"l": Node(runs=Dag({"m": inner}, {"o": Of("m", "o")}), over=[10, 20])},
            {"o": Of("l", "o")},
        )
        end, _ = run(dag, lambda leaf: leaf.inputs.parameters["i"] + leaf.inputs.parameters["j"])
        assert end.outputs.parameters == {"o": [[11, 12], [21, 22]]}

    def test_a_leaf_may_be_looped_itself(self):
        loop = Node(over=[1, 2], retries=1)
        failures = {"l/0": 1}

        def does(leaf):
            if leaf.attempt <= failures.get(leaf.path, 0):
                raise ModelyardError("not yet", code="NotYet")
            return leaf.inputs.parameters["item"] * 10

        end, work = run(Dag({"l": loop}, {"o": Of("l")}), does)
        assert end.outputs.parameters == {"o": [10, 20]}
        assert work.began == ["l/0", "l/1", "l/0"]

    def test_ten_thousand_iterations(self):
        body = Dag({"x": Node(inputs={"i": Given("item")})}, {"o": Of("x")})
        loop = Node(runs=body, inputs={"rows": Of("a")}, over="rows")
        numbers = list(range(10_000))
        end, work = run(
            Dag({"a": Node(), "l": loop}, {"o": Of("l", "o")}),
            lambda leaf: numbers if leaf.path == "a" else leaf.inputs.parameters["i"],
        )
        assert end.outputs.parameters == {"o": numbers}
        # No iteration keeps the list that they all are of.
        assert all(node.inputs.parameters.keys() == {"item"}
                   for node in work.told if node.kind == "iteration")  # fmt: skip
