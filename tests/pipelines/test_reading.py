import copy
import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from infra.errors import BadInputError
from pipelines import documents, packages, reading
from pipelines.faults import PipelineInvalidError
from tests.pipelines import corpus
from tests.pipelines.mutating import loaded, read


def _refused(data: bytes, name: str = "p.yaml") -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        reading.read_bytes(data, name)
    return caught.value


def _spec(name: str = "adding") -> dict:
    return next(yaml.safe_load_all(corpus.compiled(name)))


def _dumped(*found: object) -> bytes:
    return yaml.safe_dump_all(found).encode()


def _zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def _zip_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, corpus.compiled("adding"))
    return buffer.getvalue()


class TestRead:
    @pytest.mark.parametrize("name", corpus.NAMES)
    def test_what_the_compiler_writes_is_read(self, name: str) -> None:
        found = reading.read_bytes(corpus.compiled(name), f"{name}.yaml")

        assert found.name
        assert found.spec.root.dag.tasks
        assert set(found.kubernetes) <= set(found.deployment.executors)

    def test_values_are_those_that_the_yaml_library_reads(self) -> None:
        for name in corpus.NAMES:
            data = corpus.compiled(name)
            assert documents.parse(data, name) == list(yaml.safe_load_all(data))

    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "adding.yaml"
        path.write_bytes(corpus.compiled("adding"))

        assert reading.read(path).name == "adding"

    def test_json(self) -> None:
        found = reading.read_bytes(json.dumps(_spec()).encode(), "p.json")

        assert found == reading.read_bytes(corpus.compiled("adding"), "p.yaml")

    def test_the_platform_is_the_second_document(self) -> None:
        found = reading.read_bytes(corpus.compiled("kubernetes"), "p.yaml")

        assert found.kubernetes["exec-add"]["imagePullPolicy"] == "Always"

    def test_what_is_said_of_the_pipeline_as_a_whole(self) -> None:
        found = reading.read_bytes(corpus.compiled("workspace"), "p.yaml")

        assert found.config["workspace"]["size"] == "1Gi"
        assert found.config["workspace"]["kubernetes"]["pvcSpecPatch"]["storageClassName"]
        assert found.config["activeDeadlineSeconds"] == 3600

    def test_what_other_releases_write_is_left_out(self) -> None:
        documents = copy.deepcopy(loaded("workspace"))
        documents[0]["root"]["dag"]["tasks"]["leave"]["taskInfo"]["taskName"] = "leave"
        config = documents[1]["platforms"]["kubernetes"]["pipelineConfig"]
        config |= {"semaphoreKey": "one", "mutexName": "two", "maxActiveRuns": 3}
        config |= {"pipelineRunParallelism": 7, "pipelineVersionConcurrencyLimit": 2}

        found = read(documents)
        assert found.config == read(loaded("workspace")).config
        assert found.spec == read(loaded("workspace")).spec

    def test_a_field_that_other_releases_hand_on_is_left_out(self) -> None:
        documents = copy.deepcopy(loaded("configured"))
        handed = documents[0]["components"]["comp-show"]["taskConfigPassthroughs"]
        handed[0]["field"] = "KUBERNETES_RESOURCE_CLAIMS"
        assert read(documents).component("comp-show").task_config_passthroughs[0].field == 0

        handed[0]["field"] = "KUBERNETES_LUCK"
        with pytest.raises(PipelineInvalidError, match="KUBERNETES_LUCK"):
            read(documents)

    def test_executors_are_parsed(self) -> None:
        found = reading.read_bytes(corpus.compiled("adding"), "p.yaml")

        assert found.executor("exec-add").container.image.startswith("python:")

    def test_a_job_is_unwrapped_and_its_parameters_are_defaults(self) -> None:
        job = {
            "displayName": "job",
            "pipelineSpec": _spec(),
            "runtimeConfig": {"parameterValues": {"a": 5, "unknown": 1}},
        }

        found = reading.read_bytes(_dumped(job), "p.yaml")

        assert found.spec.root.input_definitions.parameters["a"].default_value.number_value == 5

    @pytest.mark.parametrize("version", ["2.0.0", "2.1.0", "2.1.7"])
    def test_schema_versions(self, version: str) -> None:
        data = _dumped({**_spec(), "schemaVersion": version})

        assert reading.read_bytes(data, "p.yaml").name == "adding"

    def test_aliases_stand_for_what_they_name(self) -> None:
        spec = _spec()
        shared = {"constant": 3.0}
        tasks = spec["root"]["dag"]["tasks"]
        tasks["add-2"]["inputs"]["parameters"]["b"]["runtimeValue"] = shared
        tasks["add"]["inputs"]["parameters"]["b"] = {"runtimeValue": shared}
        data = yaml.dump(spec).encode()
        assert b"&id001" in data

        found = reading.read_bytes(data, "p.yaml")

        given = found.spec.root.dag.tasks["add"].inputs.parameters["b"]
        assert given.runtime_value.constant.number_value == 3


class TestDigest:
    def _digest(self, data: bytes) -> str:
        return reading.read_bytes(data, "p.yaml").digest

    def test_is_of_what_the_file_says_and_not_of_how(self) -> None:
        spec = _spec()
        turned = dict(reversed(spec.items()))
        old = {("schema_version" if key == "schemaVersion" else key): value
               for key, value in spec.items()}  # fmt: skip

        digests = {
            self._digest(data)
            for data in (
                corpus.compiled("adding"),
                json.dumps(spec).encode(),
                yaml.safe_dump(turned, sort_keys=False).encode(),
                _dumped(old),
                _zip_of("pipeline.yaml"),
                b"# a comment\n" + corpus.compiled("adding"),
            )
        }

        assert len(digests) == 1
        assert len(digests.pop()) == 64

    def test_differs_with_any_value(self) -> None:
        changed = corpus.compiled("adding").replace(b"defaultValue: 4.0", b"defaultValue: 5.0")
        assert changed != corpus.compiled("adding")

        assert self._digest(changed) != self._digest(corpus.compiled("adding"))

    def test_differs_with_the_platform(self) -> None:
        changed = corpus.compiled("kubernetes").replace(b"Policy: Always", b"Policy: Never")

        assert self._digest(changed) != self._digest(corpus.compiled("kubernetes"))


class TestRefused:
    def test_no_file(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.yaml", tmp_path):
            with pytest.raises(BadInputError) as caught:
                reading.read(path)
            assert caught.value.code == "PipelineFileMissing"

    @pytest.mark.parametrize("data", [b"", b" \n\n", b"# nothing\n", b"---\n---\n"])
    def test_empty(self, data: bytes) -> None:
        assert _refused(data).code == "PipelineEmpty"

    @pytest.mark.parametrize(
        "data", [b"hello", b"- a\n- b", b"7", b"a: 1", b"{}", b"root: {}\nkind: Job"]
    )
    def test_no_pipeline(self, data: bytes) -> None:
        assert _refused(data).code == "PipelineFormatUnknown"

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"\x00\x01", "control"),
            (b"\xff\xfea", "byte 0"),
            (b"a: 1\nb: [}\n", "line 2"),
            (b"a:\n\t- b", "line 2, column 1"),
            (b"a: 1\na: 2", "line 2: the key 'a' stands twice"),
            (b'{"a": 1, "a": 2}', "'a' stands twice"),
            (b"a: &x {b: 1}\nc:\n  <<: *x", "merge"),
            (b"a: !!python/object/apply:os.system [ls]", "tag"),
            (b"a: !!binary aGk=", "tag"),
            (b"a: .nan", ".nan"),
            (b'{"a": NaN}', "NaN"),
            (b"a: " + b"9" * 5000, "no such number"),
            (b'{"a": ' + b"9" * 5000 + b"}", "too large"),
            (b'{"a": ' + b"9" * 400 + b"}", "too large"),
            (b'{"a": "\\ud800"}', "surrogate"),
            (b'{"a": "b\\u0000"}', "NUL"),
            (b'"a\\0": b', "NUL"),
            (b"[a]: 1", "key"),
            (b"a: *x", "x"),
            (b"a: &a [*a]", "stands for nothing yet"),
        ],
    )
    def test_unreadable(self, data: bytes, told: str) -> None:
        error = _refused(data)

        assert error.code == "PipelineUnreadable"
        assert told in error.message

    def test_malformed_json(self) -> None:
        assert "line 1, column 7" in _refused(b'{"a": }', "p.json").message

    def test_a_bomb_of_aliases(self) -> None:
        lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        for level in range(1, 9):
            inside = b", ".join([b"*a%d" % (level - 1)] * 9)
            lines.append(b"a%d: &a%d [%s]" % (level, level, inside))

        assert _refused(b"\n".join(lines)).code == "PipelineTooComplex"

    def test_a_bomb_of_one_long_text(self) -> None:
        data = b'a: &a "' + b"x" * 4_000_000 + b'"\nb: [*a, *a, *a]'

        assert _refused(data).code == "PipelineTooComplex"

    def test_many_aliases(self) -> None:
        assert _refused(b"a: &a x\nb: [" + b"*a, " * 101 + b"]").code == "PipelineTooComplex"

    @pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' + b"[" * 100_000,
                                      b'{"a":' + b"[" * 70 + b"]" * 70 + b"}"])  # fmt: skip
    def test_too_deep(self, data: bytes) -> None:
        assert _refused(data).code == "PipelineTooComplex"

    def test_too_many_values(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(documents, "MOST_VALUES", 50)

        assert _refused(corpus.compiled("adding")).code == "PipelineTooComplex"
        assert _refused(json.dumps(_spec()).encode()).code == "PipelineTooComplex"

    def test_a_hundred_megabytes_are_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "large.yaml"
        with path.open("wb") as file:
            file.truncate(100 * 1024**2)

        with pytest.raises(BadInputError) as caught:
            reading.read(path)

        assert caught.value.code == "PipelineTooLarge"

    def test_three_documents(self) -> None:
        assert _refused(_dumped(_spec(), {"platforms": {}}, {})).code == "PipelineFormatUnknown"

    @pytest.mark.parametrize(
        ("document", "told"),
        [
            ({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {}}, "Argo"),
            ({"name": "x", "implementation": {"container": {"image": "i"}}}, "component"),
            ({"kind": "PipelineVersion", "spec": {}}, "manifest"),
            ({"kind": "PipelineRun", "spec": {}}, "PipelineRun"),
            ({"platforms": {}}, "platform"),
        ],
    )
    def test_other_formats_are_named(self, document: dict, told: str) -> None:
        error = _refused(_dumped(document))

        assert error.code == "PipelineFormatUnknown"
        assert told in error.message
        assert error.hint

    def test_a_second_document_of_another_kind(self) -> None:
        assert _refused(_dumped(_spec(), {"kind": "Pod"})).code == "PipelineFormatUnknown"

    @pytest.mark.parametrize(
        "version", [None, "1.0", "2.2.0", "3.0.0", 2.1, "2.1", "x", ["2.1.0"]]
    )
    def test_schema_versions(self, version: object) -> None:
        spec = {**_spec(), "schemaVersion": version}

        assert _refused(_dumped(spec)).code == "PipelineSchemaUnknown"

    @pytest.mark.parametrize("info", [None, {}, {"name": ""}, {"name": " "}, {"name": None}])
    def test_no_name(self, info: object) -> None:
        assert _refused(_dumped({**_spec(), "pipelineInfo": info})).code == "PipelineNameMissing"

    def test_another_platform(self) -> None:
        error = _refused(_dumped(_spec(), {"platforms": {"google_cloud": {}}}))

        assert "platforms.google_cloud" in error.message


def _set(path: str, value: object) -> Callable[[dict], None]:
    def change(spec: dict) -> None:
        *above, last = path.split("/")
        for part in above:
            spec = spec.setdefault(part, {})
        spec[last] = value

    return change


_TASK = "root/dag/tasks/add"


class TestShape:
    @pytest.mark.parametrize(
        ("path", "value", "place"),
        [
            ("rot", {}, "rot"),
            ("components", [1], "components"),
            ("components/comp-add", "x", "components.comp-add"),
            ("components/comp-add", None, "components.comp-add"),
            ("components/comp-add/dag", {}, "components.comp-add.executorLabel"),
            ("sdkVersion", 2, "sdkVersion"),
            (f"{_TASK}/dependentTasks", "x", "root.dag.tasks.add.dependentTasks"),
            (f"{_TASK}/dependentTasks", [1], "root.dag.tasks.add.dependentTasks[0]"),
            (
                f"{_TASK}/triggerPolicy",
                {"strategy": "SOON"},
                "root.dag.tasks.add.triggerPolicy.strategy",
            ),
            (
                f"{_TASK}/retryPolicy",
                {"maxRetryCount": "many"},
                "root.dag.tasks.add.retryPolicy.maxRetryCount",
            ),
            (
                f"{_TASK}/retryPolicy",
                {"backoffDuration": "soon"},
                "root.dag.tasks.add.retryPolicy.backoffDuration",
            ),
            (
                f"{_TASK}/cachingOptions",
                {"enableCache": "yes"},
                "root.dag.tasks.add.cachingOptions.enableCache",
            ),
            (
                f"{_TASK}/inputs/parameters/a",
                {"runtimeValue": {"constant": 2**60 + 1}},
                "root.dag.tasks.add.inputs.parameters.a.runtimeValue.constant",
            ),
            (
                f"{_TASK}/inputs/parameters/a",
                {"componentInputParameter": "a", "runtimeValue": {}},
                "root.dag.tasks.add.inputs.parameters.a.runtimeValue",
            ),
            (
                "components/comp-add/inputDefinitions/parameters/a/parameterType",
                "NUMBER",
                "components.comp-add.inputDefinitions.parameters.a.parameterType",
            ),
            ("deploymentSpec", [], "deploymentSpec"),
            (
                "deploymentSpec/executors/exec-add/container/image",
                7,
                "deploymentSpec.executors.exec-add.container.image",
            ),
            (
                "deploymentSpec/executors/exec-add/container/resources",
                {"cpuLimit": "much"},
                "deploymentSpec.executors.exec-add.container.resources.cpuLimit",
            ),
        ],
    )
    def test_each_fault_has_its_place(self, path: str, value: object, place: str) -> None:
        spec = _spec()
        _set(path, value)(spec)

        error = _refused(_dumped(spec))

        assert isinstance(error, PipelineInvalidError)
        assert [fault.place for fault in error.faults] == [place]

    def test_all_faults_are_told_at_once(self) -> None:
        spec = _spec()
        _set("one", 1)(spec)
        _set("root/two", 2)(spec)

        error = _refused(_dumped(spec, {"platforms": {"kubernetes": {"three": 3}}}))

        assert [one.place for one in error.faults] == ["one", "root.two",
                                                       "platforms.kubernetes.three"]  # fmt: skip
        assert error.code == "PipelineInvalid"
        assert "3 faults" in error.message

    def test_what_is_null_is_as_if_it_were_not_there(self) -> None:
        data = _dumped({**_spec(), "defaultPipelineRoot": None})

        assert reading.read_bytes(data, "p.yaml").name == "adding"


class TestZip:
    @pytest.mark.parametrize(
        "names",
        [
            ("pipeline.yaml",),
            ("other.yml",),
            ("folder/p.json",),
            ("a.yaml", "pipeline.yaml"),
            ("p.yaml", "README.md", "__MACOSX/._p.yaml"),
        ],
    )
    def test_its_pipeline_is_taken_out(self, names: tuple[str, ...]) -> None:
        assert reading.read_bytes(_zip_of(*names), "p.zip").name == "adding"

    def test_is_told_by_its_content(self) -> None:
        assert reading.read_bytes(_zip_of("pipeline.yaml"), "upload").name == "adding"

    @pytest.mark.parametrize("names", [(), ("README.md",), ("a.yaml", "b.yaml")])
    def test_without_one_pipeline(self, names: tuple[str, ...]) -> None:
        assert _refused(_zip_of(*names), "p.zip").code == "PackageInvalid"

    @pytest.mark.parametrize(
        "data",
        [b"no zip", b"PK\x03\x04broken", _zip_of("pipeline.yaml")[:-30], b"\x1f\x8b..."],
        ids=["text", "broken", "cut", "gzip"],  # a zip has the time in it, a test's name has not
    )
    def test_no_zip(self, data: bytes) -> None:
        assert _refused(data, "p.zip").code == "PackageInvalid"

    @pytest.mark.parametrize("name", ["../p.yaml", "/etc/p.yaml", "a/../../p.yaml", "C:/p.yaml",
                                      "..\\p.yaml"])  # fmt: skip
    def test_climbing_names(self, name: str) -> None:
        error = _refused(_zip_of("pipeline.yaml", name), "p.zip")

        assert error.code == "PackageInvalid"
        assert "outside" in error.message

    def test_a_link(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            link = zipfile.ZipInfo("pipeline.yaml")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "/etc/passwd")

        assert "link" in _refused(buffer.getvalue(), "p.zip").message

    def test_encrypted(self) -> None:
        data = bytearray(_zip_of("pipeline.yaml"))
        data[data.index(b"PK\x01\x02") + 8] |= 1

        assert "encrypted" in _refused(bytes(data), "p.zip").message

    def test_too_many_files(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number in range(packages.MOST_MEMBERS + 1):
                archive.writestr(f"{number}.txt", "")

        assert _refused(buffer.getvalue(), "p.zip").code == "PackageInvalid"

    def test_a_bomb(self) -> None:
        assert _refused(_zipped(**{"pipeline.yaml": b" " * 30_000_000}), "p.zip").code in {
            "PackageInvalid"
        }

    def test_a_large_file_in_it(self) -> None:
        noise = b"".join(b"# %d\n" % number for number in range(800_000))
        assert len(noise) > documents.LARGEST

        assert _refused(_zipped(**{"pipeline.yaml": noise}), "p.zip").code == "PipelineTooLarge"

    def test_a_size_that_lies(self) -> None:
        data = bytearray(_zipped(**{"pipeline.yaml": b"# x\n" * 2_000_000}))
        at = data.index(b"PK\x01\x02") + 24
        data[at : at + 4] = (100).to_bytes(4, "little")

        assert _refused(bytes(data), "p.zip").code in {"PackageInvalid", "PipelineTooLarge"}
