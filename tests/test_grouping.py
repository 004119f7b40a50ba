import pytest

from competition.command import Failure
from competition.grouping import car_and_view, groups
from competition.settings.resolve import resolve


@pytest.mark.parametrize(
    ("img", "rule", "car", "view"),
    [
        ("0cdf5b5d0ce1_01.jpg", "auto", "0cdf5b5d0ce1", 1),
        ("0cdf5b5d0ce1_16.jpg", "auto", "0cdf5b5d0ce1", 16),
        ("my_red_car_07.png", "auto", "my_red_car", 7),
        ("IMG_2041.jpg", "auto", "IMG_2041", 0),
        ("my_red_car_7.png", "auto", "my_red_car_7", 0),  # a view has two digits
        ("IMG_17.jpg", "auto", "IMG_17", 0),
        ("IMG_00.jpg", "auto", "IMG_00", 0),
        ("a_٠١.jpg", "auto", "a_٠١", 0),  # Arabic digits
        ("beetle.v2.jpg", "auto", "beetle.v2", 0),
        ("_03.jpg", "auto", "_03", 0),
        ("0cdf5b5d0ce1_01.jpg", "photo", "0cdf5b5d0ce1_01", 0),
        ("audi a4/front_01.jpg", "folder", "audi a4", 0),
        ("front.jpg", "folder", "front", 0),
        ("audi_a4_front.jpg", "before:_", "audi", 0),
        ("audi_a4_front.jpg", "before_last:_", "audi_a4", 0),
        ("audi--front-1.jpg", "before:--", "audi", 0),
        ("audi.jpg", "before:_", "audi", 0),
        ("audi.jpg", "before_last:_", "audi", 0),
        ("_audi.jpg", "before:_", "_audi", 0),
        ("a:b:c.jpg", "before_last::", "a:b", 0),
    ],
)
def test_car_and_view(img: str, rule: str, car: str, view: int) -> None:
    assert car_and_view(img, rule) == (car, view)


@pytest.mark.parametrize("rule", ["", "car", "before", "before:", "before_last:", "after:_", "Auto"])
def test_unknown_rules_are_rejected(rule: str) -> None:
    with pytest.raises(Failure, match=f"data.cars='{rule}' is not allowed: auto, photo, folder, before:S or before_"):
        resolve({"data": {"cars": rule}})


def grouped(names: list[str], rule: str = "auto") -> dict[str, str]:
    return {f"{name}.jpg": car_and_view(f"{name}.jpg", rule)[0] for name in names}


def numbered(prefix: str, last: int) -> list[str]:
    return [f"{prefix}_{number:02d}" for number in range(1, last + 1)]


CARVANA = [name for car in ("aa", "bb", "cc") for name in numbered(car, 16)]


@pytest.mark.parametrize(
    ("names", "rule", "warning"),
    [
        (
            numbered("IMG", 40),
            "auto",
            "IMG_01.jpg and others count as views of one car, IMG, but IMG_17.jpg",
        ),
        ([*numbered("IMG", 17), *numbered("DSC", 19)], "auto", "and 1 more such names"),
        ([*numbered("IMG", 5), "IMG_2041"], "auto", "IMG_2041.jpg has a number that is no view"),
        ([*numbered("a", 16), *numbered("b", 5)], "auto", "car a has 16 of the 21 photos"),
        ([*numbered("IMG", 8), *numbered("DSC", 8)], "auto", "car IMG has 8 of the 16 photos"),
        (numbered("car", 6), "auto", "car car has 6 of the 6 photos"),
        (
            [f"IMG_{number}" for number in range(2041, 2047)],
            "auto",
            "each of the 6 photos is a car of its own",
        ),
        (["a-1", "b-1"], "before:_", "each of the 2 photos is a car of its own"),
        (CARVANA, "auto", None),
        ([*numbered("0cdf5b5d0ce1", 2), *numbered("08a646be6b30", 2)], "auto", None),
        (numbered("IMG", 40), "photo", None),
        (["a/1", "a/2", "b/1", "b/2"], "folder", None),
    ],
)
def test_implausible_groups_are_named(names: list[str], rule: str, warning: str | None) -> None:
    found = groups(grouped(names, rule), rule)
    assert found.warnings == [] if warning is None else any(warning in line for line in found.warnings)


def test_the_sizes_of_groups() -> None:
    assert str(groups(grouped(CARVANA))) == "48 photos of 3 cars, 16 of each"
    found = groups(grouped([*numbered("a", 3), *numbered("b", 2), "c"]))
    assert str(found) == "6 photos of 3 cars, 1 to 3 (median 2) of each"
