"""Drawing through Ray: the same images, however many workers there are and whichever die."""

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


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore")
def test_a_run_on_ray_leaves_the_record_of_one_process(tmp_path):
    pytest.importorskip("ray")
    from negbench.evaluate import evaluate
    from negbench.plan import make_plan

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a castle, number {i}\n" for i in range(20)))
    records = [
        evaluate(
            make_plan(
                methods=["static"],
                method_params={"text": "blurry"},
                generator="fake",
                generator_params={"size": 16, "steps": 4},
                metrics=["ssim", "no_op"],
                prompts=prompts,
                out=tmp_path / place,
                cache=tmp_path / f"{place}-cache",
                options=options,
            )
        )[0]
        for place, options in (
            ("alone", RunOptions()),
            ("ray", RunOptions(ray="local", ray_workers=2)),
        )
    ]
    alone, spread = (record.model_dump(exclude={"provenance", "folder"}) for record in records)
    assert alone == spread
    assert records[0].samples() == records[1].samples()
