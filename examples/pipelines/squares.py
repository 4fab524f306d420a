"""A pipeline written with the KFP SDK, to be compiled by running this file."""

from pathlib import Path

from kfp import compiler, dsl


@dsl.component(base_image="python:3.11-slim")
def numbers(upto: int) -> list:
    return list(range(1, upto + 1))


@dsl.component(base_image="python:3.11-slim")
def square(number: int) -> int:
    print(f"{number} squared is {number * number}")
    return number * number


@dsl.component(base_image="python:3.11-slim")
def total(values: list) -> int:
    return sum(values)


@dsl.pipeline(name="squares", description="Squares numbers at once, and adds them up.")
def squares(upto: int = 3) -> int:
    with dsl.ParallelFor(numbers(upto=upto).output) as number:
        squared = square(number=number)
    return total(values=dsl.Collected(squared.output)).output


if __name__ == "__main__":
    compiler.Compiler().compile(squares, str(Path(__file__).with_suffix(".yaml")))
