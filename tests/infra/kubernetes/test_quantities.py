from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.kubernetes import quantities


@pytest.mark.parametrize(
    ("cpu", "text"), [(1, "1"), (2.0, "2"), (0.5, "500m"), (1.25, "1250m"), (0.0001, "1m")]
)
def test_cores_are_written_in_whole_ones_or_thousandths(cpu: float, text: str) -> None:
    assert quantities.format_cores(cpu) == text


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0"), (1, "1"), (1000.2, "1001"), (2**10, "1Ki"), (3 * 2**30, "3Gi"), (2**40, "1Ti")],
)
def test_sizes_are_written_in_the_largest_unit_that_is_exact(octets: float, text: str) -> None:
    assert quantities.format_bytes(octets) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("3", 3), (4, 4), ("1.5", 1.5), (".5", 0.5), ("2.", 2), ("500m", 0.5),
        ("250u", 0.00025), ("1n", 1e-9), ("1k", 1000), ("2M", 2e6), ("1E", 1e18), ("1E3", 1000),
        ("1e3", 1000), ("2e-1", 0.2), ("1Ki", 1024), ("16374564Ki", 16374564 * 1024),
        ("1.5Gi", 1.5 * 2**30), ("2Ei", 2 * 2**60), ("-1", -1),
    ],
)  # fmt: skip
def test_quantities_are_read(text: str, value: float) -> None:
    assert quantities.parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1mi", "1K", "1/2", "nan", "1e", "0x10"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        quantities.parse_quantity(text)


@given(st.integers(1, 2**62))
def test_a_size_is_read_as_it_was_written(octets: int) -> None:
    assert quantities.parse_quantity(quantities.format_bytes(octets)) == float(octets)


@given(st.integers(1, 10**6))
def test_cores_are_read_as_they_were_written(thousandths: int) -> None:
    assert (
        quantities.parse_quantity(quantities.format_cores(thousandths / 1000))
        == thousandths / 1000
    )
