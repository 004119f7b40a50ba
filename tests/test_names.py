import pytest

from competition.names import canonical, is_utf8, mask_key, suffix, why_unusable, without_suffix


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("0cdf5b5d0ce1_01.jpg", None),
        ("K\xe4fer, \"rot\" 'x'.jpg", None),
        ("\U0001f697\u200d\xa0.jpg", None),
        ("K\udce4fer.jpg", "is not UTF-8"),
        ("a\tb.jpg", "has a line break or another control character"),
        ("a\x85b.jpg", "has a line break or another control character"),
        ("a\u2029b.jpg", "has a line break or another control character"),
        (f"{'a' * 227}.jpg", "is longer than 230 bytes"),
        ("\xe4" * 120, "is longer than 230 bytes"),
    ],
)
def test_names_that_cannot_be_used(name: str, reason: str | None) -> None:
    assert why_unusable(name) == reason
    assert is_utf8(name) == (reason != "is not UTF-8")


@pytest.mark.parametrize(
    ("img", "key"),
    [
        ("a_01.jpg", "a_01"),
        ("A_01_MASK.GIF", "a_01"),
        ("a_mask_mask.png", "a"),
        ("car.v2/b.c.png", "car.v2/b.c"),
        ("masked.png", "masked"),
    ],
)
def test_what_a_photo_and_its_mask_have_in_common(img: str, key: str) -> None:
    assert mask_key(img) == key


def test_forms_of_a_name() -> None:
    assert canonical("Ka\u0308fer") == canonical("K\xe4fer") == "K\xe4fer"
    assert (without_suffix("a.b/c.d.JPG"), suffix("a.b/c.d.JPG"), suffix("a.b/c")) == ("a.b/c.d", ".jpg", "")
