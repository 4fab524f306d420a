"""The engine, with leaves that are functions of this process: exits, retries, stops."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.errors import BadInputError, ModelyardError
from pipelines import execution
from pipelines.states import BROKEN, DONE, TaskResult, TaskState
from tests.pipelines import engine
from tests.pipelines.engine import (
    NO,
    Dag,
    Given,
    Node,
    Of,
    Status,
    Threads,
    Work,
    failing,
    run,
)


class TestReason:
    def test_what_no_database_takes_is_not_in_it(self):
        def does(leaf):
            raise ModelyardError("binary \0 \ud800 junk", code="Broken")

        end, work = run(Dag({"d": Node(runs=Dag({"x": Node()}))}), does)
        assert (
            work.nodes["d/x"].reason
            == "binary \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER} junk"
        )
        assert "\0" not in end.reason


class TestExit:
    BODY = Dag({"x": Node(), "y": Node(after=("x",))})

    def handled(self, exit_task):
        return Dag({"body": Node(runs=self.BODY), "exit": exit_task})

    def test_an_exit_task_is_told_how_its_body_ended(self):
        told = {}
        dag = self.handled(Node(inputs={"s": Status("body")}, regardless=True))
        for broken in ((), ("body/x",)):
            _, work = run(dag, failing(*broken))
            told[broken] = work.nodes["exit"].inputs.parameters["s"]
        job = "{{$.pipeline_job_resource_name}}"  # which is filled by whoever knows the run
        assert told[()] == {
            "state": "SUCCEEDED", "pipelineJobResourceName": job, "pipelineTaskName": "body",
            "error": {},
        }  # fmt: skip
        assert told[("body/x",)] == {
            "state": "FAILED", "pipelineJobResourceName": job, "pipelineTaskName": "body",
            "error": {"message": "x: body/x broke."},
        }  # fmt: skip

    @pytest.mark.parametrize("state", [state for state in TaskState if state in DONE | BROKEN])
    def test_a_final_status_is_one_of_the_three_of_the_sdk(self, state):
        expected = "SUCCEEDED" if state in DONE else "FAILED"
        if state is TaskState.CANCELLED:
            expected = "CANCELLED"
        assert TaskResult(state).final_status == expected

    def test_of_a_body_that_is_left_out_too(self):
        dag = Dag(
            {
                "first": Node(),
                "body": Node(runs=self.BODY, after=("first",)),
                "exit": Node(inputs={"s": Status("body")}, regardless=True),
            }
        )
        _, work = run(dag, failing("first"))
        assert work.states["body"] == "OMITTED"
        assert work.nodes["exit"].inputs.parameters["s"]["state"] == "FAILED"

    def test_of_a_branch_that_was_not_taken(self):
        dag = Dag(
            {
                "body": Node(runs=self.BODY, condition=NO),
                "exit": Node(inputs={"s": Status("body")}, regardless=True),
            }
        )
        _, work = run(dag)
        assert work.nodes["exit"].inputs.parameters["s"]["state"] == "SUCCEEDED"

    def test_an_exit_task_mends_nothing(self):
        end, work = run(self.handled(Node(after=("body",), regardless=True)), failing("body/x"))
        assert (end.state, work.states["exit"]) == ("FAILED", "SUCCEEDED")

    def test_one_that_fails_fails_the_run(self):
        end, _ = run(self.handled(Node(after=("body",), regardless=True)), failing("exit"))
        assert (end.state, end.reason) == ("FAILED", "exit: exit broke.")

    def test_it_may_be_a_dag_with_branches_of_its_own(self):
        failed = "inputs.parameter_values['t'] == 'FAILED'"
        clean_up = Dag(
            {
                "state": Node(inputs={"s": Given("s")}),
                "mail": Node(inputs={"t": Of("state")}, condition=failed),
            }
        )
        dag = self.handled(Node(runs=clean_up, inputs={"s": Status("body")}, regardless=True))
        states = {}
        for broken in ((), ("body/y",)):
            breaks = failing(*broken)

            def does(leaf, breaks=breaks):
                told = breaks(leaf)
                return leaf.inputs.parameters["s"]["state"] if "state" in leaf.path else told

            states[broken] = run(dag, does)[1].states["exit/mail"]
        assert states == {(): "SKIPPED", ("body/y",): "SUCCEEDED"}

    def test_handlers_in_handlers(self):
        inner = self.handled(Node(inputs={"s": Status("body")}, regardless=True))
        dag = Dag(
            {
                "outer": Node(runs=inner),
                "last": Node(inputs={"s": Status("outer")}, regardless=True),
            }
        )
        _, work = run(dag, failing("outer/body/y", "outer/exit"))
        assert work.states["outer/exit"] == "FAILED"
        assert work.states["last"] == "SUCCEEDED"
        told = work.nodes["last"].inputs.parameters["s"]
        assert told["state"] == "FAILED"
        assert told["error"]["message"] == (
            "body: y: outer/body/y broke.; exit: outer/exit broke."
        )

    def test_the_rest_of_the_pipeline_goes_on_beside_it(self):
        dag = Dag({**self.handled(Node(after=("body",), regardless=True)).tasks, "other": Node()})
        assert run(dag, failing("body/x"))[1].states["other"] == "SUCCEEDED"


class TestRetries:
    def fails(self, times, error=None):
        def does(leaf):
            if leaf.attempt <= times:
                raise error or ModelyardError("not yet", code="NotYet")
            return leaf.attempt

        return does

    def test_a_leaf_is_tried_as_often_as_it_may(self):
        dag = Dag({"a": Node(retries=2)}, {"o": Of("a")})
        end, work = run(dag, self.fails(2))
        assert end.outputs.parameters == {"o": 3}
        assert [node.attempt for node in work.told if node.state == "RUNNING"] == [1, 2, 3]
        assert run(dag, self.fails(3))[0].state == "FAILED"

    def test_what_another_attempt_cannot_change_is_not_tried_again(self):
        refused = BadInputError("It is wrong.", "Mend it.", code="Wrong")
        _, work = run(Dag({"a": Node(retries=9)}), self.fails(9, refused))
        assert work.began == ["a"]

    def test_a_dag_is_tried_again_as_a_whole(self):
        attempts = itertools.count()

        def does(leaf):
            if leaf.path == "d/y" and next(attempts) < 1:
                raise ModelyardError("not yet", code="NotYet")
            return engine.says(leaf)

        inner = Dag({"x": Node(), "y": Node(after=("x",))}, {"o": Of("y")})
        dag = Dag({"d": Node(runs=inner, retries=1)}, {"o": Of("d", "o")})
        end, work = run(dag, does)
        assert end.state == "SUCCEEDED"
        assert work.began == ["d/x", "d/y", "d/x", "d/y"]
        assert work.nodes["d"].attempt == 2

    def test_a_dag_whose_inputs_are_not_there_is_not_tried_at_all(self):
        inner = Dag({"x": Node()})
        needy = Node(runs=inner, inputs={"i": Of("a")}, regardless=True, retries=2)
        _, work = run(Dag({"a": Node(), "d": needy}), failing("a"))
        assert work.began == ["a"]
        assert (work.states["d"], work.nodes["d"].attempt) == ("FAILED", 1)

    @pytest.mark.parametrize(
        ("policy", "waits"),
        [
            ({"backoffDuration": "3s"}, [3, 6, 12]),
            ({"backoffDuration": "3s", "backoffFactor": 1.5}, [3, 4.5, 6.75]),
            ({"backoffDuration": "3s", "backoffMaxDuration": "5s"}, [3, 5, 5]),
            ({"backoffDuration": "2000s"}, [2000, 3600, 3600]),
            ({}, [0, 0, 0]),
        ],
    )
    def test_the_wait_grows(self, policy, waits):
        built = engine.json_format.ParseDict(policy, engine.ir.PipelineTaskSpec.RetryPolicy())
        assert [execution.backoff(built, attempt) for attempt in (1, 2, 3)] == waits
        assert execution.backoff(built, 100_000) in {0, 5, 3600}

    @pytest.mark.parametrize("inner", [None, Dag({"x": Node()})])
    def test_it_is_waited_before_another_attempt(self, monkeypatch, inner):
        clock = itertools.count(step=0.5)
        began = []
        monkeypatch.setattr(execution, "_POLL_SECONDS", 0.001)
        monkeypatch.setattr(execution.time, "monotonic", lambda: next(clock))

        def does(leaf):
            began.append(next(clock))
            raise ModelyardError("never", code="Never")

        run(Dag({"a": Node(runs=inner, retries=2, backoff=100)}), does)
        gaps = [later - earlier for earlier, later in itertools.pairwise(began)]
        assert 100 <= gaps[0] < 110
        assert 200 <= gaps[1] < 210


class TestCancelled:
    DAG = Dag(
        {
            "a": Node(),
            "loop": Node(
                runs=Dag({"x": Node(), "y": Node(after=("x",))}), over=[1, 2, 3], limit=2
            ),
            "b": Node(runs=Dag({"x": Node(retries=3)}), after=("a",), retries=1),
            "c": Node(after=("b", "loop"), regardless=True),
        }
    )

    def moments(self):
        """How often something is told of a run that nobody disturbs."""
        return len(run(self.DAG)[1].told)

    def test_at_every_moment(self):
        ends = set()
        for moment in range(self.moments() + 1):
            cancelled = threading.Event()
            began_after = []

            class Stops(Work):
                def on_node_changed(self, node, cancelled=cancelled, moment=moment):
                    super().on_node_changed(node)
                    if len(self.told) > moment:
                        cancelled.set()

                def submit(self, leaf, cancelled=cancelled, began_after=began_after):
                    if cancelled.is_set():
                        began_after.append(leaf.path)
                    return super().submit(leaf)

            work = Stops()
            end = engine.execute(self.DAG, work, cancelled=cancelled)
            assert not {"WAITING", "RUNNING"} & set(work.states.values()), moment
            # At most the one leaf that was about to begin when it was told of.
            assert len(began_after) <= 1, moment
            ends.add(str(end.state))
        assert ends == {"CANCELLED", "SUCCEEDED"}

    def test_a_leaf_that_is_ended_has_not_failed(self):
        cancelled = threading.Event()

        def does(leaf):
            cancelled.set()
            raise ModelyardError("It was stopped.", code="Stopped")

        end, work = run(Dag({"a": Node(), "b": Node(after=("a",))}), does, cancelled=cancelled)
        assert end.state == "CANCELLED"
        assert work.states == {"a": "CANCELLED", "b": "CANCELLED"}
        assert "It was stopped." in work.nodes["a"].reason

    def test_a_leaf_that_waits_for_another_attempt_is_not_tried_again(self):
        cancelled = threading.Event()

        def does(leaf):
            cancelled.set()
            raise ModelyardError("stopped", code="Stopped")

        dag = Dag({"a": Node(retries=5, backoff=3000), "b": Node(after=("a",))})
        end, work = run(dag, does, cancelled=cancelled)
        assert work.began == ["a"]
        assert end.state == "CANCELLED"
        assert work.states == {"a": "CANCELLED", "b": "CANCELLED"}

    def test_a_dag_that_waits_for_another_attempt_neither(self):
        cancelled = threading.Event()

        def does(leaf):
            cancelled.set()
            raise ModelyardError("stopped", code="Stopped")

        dag = Dag({"d": Node(runs=Dag({"x": Node()}), retries=5, backoff=3000)})
        _, work = run(dag, does, cancelled=cancelled)
        assert work.began == ["d/x"]
        assert work.states == {"d": "CANCELLED", "d/x": "CANCELLED"}

    def test_from_another_thread_while_leaves_run(self):
        cancelled = threading.Event()
        work = Threads(lambda leaf: cancelled.wait(30))
        loop = Node(runs=Dag({"x": Node()}), over=list(range(10)))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(
                engine.execute, Dag({"l": loop}), work, parallel=4, cancelled=cancelled
            )
            while len(work.began) < 4:
                assert not running.done()
            cancelled.set()
            assert running.result(30).state == "CANCELLED"
        assert len(work.began) == 4
        assert sorted(work.states.values()).count("SUCCEEDED") >= 4

    def test_an_interrupt_goes_on_when_nothing_runs_any_more(self):
        released, over = threading.Event(), []

        def does(leaf):
            if leaf.path == "slow":
                assert released.wait(30)
                over.append(leaf.path)
            return

        class Interrupted(Threads):
            def on_node_changed(self, node):
                super().on_node_changed(node)
                if node.path == "quick" and node.state == TaskState.SUCCEEDED:
                    threading.Timer(0.05, released.set).start()
                    raise KeyboardInterrupt

        work = Interrupted(does)
        with pytest.raises(KeyboardInterrupt):
            engine.execute(
                Dag({"slow": Node(), "quick": Node(), "z": Node(after=("slow",))}), work
            )
        assert over == ["slow"]
        assert sorted(work.began) == ["quick", "slow"]
