"""Drawing through Ray: the same images, however many workers there are and whichever die."""

import time

import pytest

from negbench.errors import MissingError
from negbench.generators.base import RunOptions
from negbench.types import Guidance, ImageRequest, Treatment

pytestmark = pytest.mark.slow


def requests_of(generator, count):
    rule = Guidance(kind="cfg", scale=4.0)
    return [
        ImageRequest(
            generator=generator.ref(),
            treatment=Treatment(prompt=f"a castle, number {i}", guidance=rule),
            seed=i,
        )
        for i in range(count)
    ]


@pytest.fixture
def nodes():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    others = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    yield cluster, others
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore")
def test_a_node_that_dies_changes_no_image(nodes):
    from negbench.cluster import RayPool
    from negbench.generators.resolve import resolve

    cluster, others = nodes
    generator = resolve("fake", params={"delay": 0.02, "size": 16}, options=RunOptions())
    requests = requests_of(generator, 300)
    alone = {drawn.key: drawn.pixels.tobytes() for drawn in generator.draw(requests)}
    pool = RayPool(generator, workers=3)
    seen = {}
    for number, drawn in enumerate(pool.draw(requests)):
        seen[drawn.key] = drawn.pixels.tobytes()
        if number == 40:
            cluster.remove_node(others[0])
    pool.close()
    assert seen == alone


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    import sys

    from negbench.cluster import RayPool
    from negbench.generators.resolve import resolve

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError, match="negbench\\[ray\\]"):
        RayPool(resolve("fake", params={}, options=RunOptions()))
