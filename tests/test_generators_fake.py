from __future__ import annotations

import numpy as np
import pytest

from negbench.errors import ConfigError, NegbenchError, UnknownNameError
from negbench.generators.resolve import resolve
from negbench.types import Guidance, ImageRequest, Negative, Treatment

GOLDEN = [158, 199, 156]


def request(generator, prompt, *negatives, seed=0, **guidance):
    return ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt=prompt,
            negatives=tuple(Negative(text=text) for text in negatives),
            guidance=Guidance(**guidance),
        ),
        seed=seed,
    )


def test_pixels_follow_from_the_request_alone():
    generator = resolve("fake", params={"size": 16})
    requests = [request(generator, "a"), request(generator, "a", seed=1), request(generator, "b")]
    first = [item.pixels for item in generator.draw(requests)]
    again = [item.pixels for item in resolve("fake", params={"size": 16}).draw(requests[::-1])]
    assert all(np.array_equal(a, b) for a, b in zip(first, again[::-1], strict=True))
    assert len({pixels.tobytes() for pixels in first}) == 3
    assert first[0].shape == (16, 16, 3)
    assert first[0].dtype == np.uint8
    # Golden bytes: the store of a run on this generator stays valid.
    fixed = ImageRequest(
        generator=generator.ref(), treatment=Treatment(prompt="x", guidance=Guidance()), seed=3
    )
    assert next(iter(generator.draw([fixed]))).pixels[0, 0].tolist() == GOLDEN


def test_evaluations_are_those_of_a_real_generator():
    generator = resolve("fake", params={"steps": "10"})
    assert generator.evaluations(request(generator, "a", "b")) == 20
    assert generator.evaluations(request(generator, "a", "b", scale=1.0)) == 10


def test_misbehaviour_is_no_identity():
    plain, failing = resolve("fake"), resolve("fake", params={"fail_at": 1, "delay": 0.0})
    assert plain.ref() == failing.ref()
    requests = [request(plain, text) for text in "ab"]
    drawn = failing.draw(requests)
    assert next(drawn).key == requests[0].key()
    with pytest.raises(NegbenchError, match="image 1"):
        next(drawn)


def test_wrong_parameters_and_rules_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean size"):
        resolve("fake", params={"sise": 3})
    with pytest.raises(ConfigError, match="size"):
        resolve("fake", params={"size": 3})
    generator = resolve("fake")
    with pytest.raises(ConfigError, match="after the last of 25"):
        generator.check_guidance(Guidance(kind="window", params={"start": 30}))
