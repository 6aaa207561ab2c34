"""What a generator is known by, and what is refused before anything is drawn."""

from __future__ import annotations

import json
import shutil
import struct
import sys

import pytest
from tiny_pipelines import make_sd, make_sdxl

from negbench import weight_files
from negbench.errors import ConfigError, DataError, MissingError, NegbenchError, UnknownNameError
from negbench.generators import weights
from negbench.generators.base import RunOptions
from negbench.generators.choices import choose_device, read_lora
from negbench.generators.families import inspect
from negbench.generators.resolve import resolve
from negbench.generators.schedule import Schedule
from negbench.types import canonical_json

CPU = RunOptions(device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {"sd": make_sd(root / "sd"), "sdxl": make_sdxl(root / "sdxl")}


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made["sd"], tmp_path / "pipeline")


def plan(folder, **params):
    return resolve(str(folder), params={"dtype": "float32", **params}, options=CPU)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_identity_is_content_not_place(made, folder):
    original, copy = plan(made["sd"]).ref(), plan(folder).ref()
    assert original == copy
    assert str(folder) not in original.canonical().decode()
    assert resolve(str(folder), params={"dtype": "float32"}).ref() == copy
    batched = resolve(
        str(folder), params={"dtype": "float32"}, options=RunOptions(device="cpu", batch_size=3)
    )
    assert batched.ref() == copy
    assert plan(folder, scale=3.0).ref() == copy  # the scale is in the request's guidance
    assert plan(folder, scheduler="pndm").ref() == copy
    assert plan(folder, scheduler="PNDMScheduler", steps=30, height=16).ref() == copy


def test_identity_follows_every_file_and_choice(made, folder):
    seen = {plan(made[name]).ref().digest() for name in made}
    for choice in (
        {"scheduler": "ddim"},
        {"scheduler": "dpm++2m"},
        {"scheduler": "dpm++2m_karras"},
        {"steps": 29},
        {"width": 24},
        {"long_text": "chunk"},
        {"dtype": "bfloat16"},
    ):
        seen.add(plan(folder, **choice).ref().digest())
    assert len(seen) == 9
    changed = [
        lambda: edit(folder / "unet" / "config.json", flip_sin_to_cos=False),
        lambda: edit(folder / "scheduler" / "scheduler_config.json", beta_start=0.001),
        lambda: edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=11),
        lambda: flip_last_byte(folder / "vae" / "diffusion_pytorch_model.safetensors"),
        lambda: flip_last_byte(folder / "text_encoder" / "model.safetensors"),
    ]
    for change in changed:
        change()
        digest = plan(folder).ref().digest()
        assert digest not in seen
        seen.add(digest)
    (folder / "README.md").write_text("not part of it")
    assert plan(folder).ref().digest() in seen


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_digest_of_a_large_file_is_remembered_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "CACHED_FROM", 8)
    path = tmp_path / "large.safetensors"
    path.write_bytes(b"0123456789")
    first = weight_files.file_digest(path)
    with monkeypatch.context() as patch:
        patch.setattr(weight_files.hashlib, "file_digest", None)
        assert weight_files.file_digest(path) == first
    path.write_bytes(b"0123456788")
    assert weight_files.file_digest(path) != first
    for kept in (weight_files.user_cache() / "digests").iterdir():
        kept.write_text("torn")
    assert weight_files.file_digest(path) != first


def test_infinities_in_a_scheduler_config_survive_json():
    own = {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -float("inf")}
    schedule = Schedule.choose("own", own, steps=3)
    canonical_json(dict(schedule.config))
    assert schedule.build().config.lambda_min_clipped == -float("inf")


def test_defaults_are_those_of_the_family(made):
    sd, sdxl = plan(made["sd"]), plan(made["sdxl"])
    assert (sd.default_guidance().scale, sdxl.default_guidance().scale) == (7.5, 5.0)
    assert sd.config.steps == sdxl.config.steps == 30
    assert sd.image_size() == sdxl.image_size() == (16, 16)
    assert (sd.config.scheduler, sdxl.config.scheduler) == (
        "PNDMScheduler",
        "EulerDiscreteScheduler",
    )
    assert sd.describe()["spec"] == str(made["sd"])


def refused(folder, kind, *words, **params):
    with pytest.raises(kind) as caught:
        plan(folder, **params)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message) < 400
    return message


def test_choices_that_do_not_fit(folder):
    refused(folder, ConfigError, "height=20", "multiple of 8", height=20)
    refused(folder, ConfigError, "steps", steps=0)
    refused(folder, ConfigError, "long_text", long_text="wrap")
    refused(folder, ConfigError, "unknown scheduler 'eular'", "euler", scheduler="eular")
    refused(folder, ConfigError, "LCMScheduler", "distilled", scheduler="LCMScheduler")
    refused(folder, UnknownNameError, "'step'", "did you mean steps", step=3)
    refused(folder, ConfigError, "one .safetensors file", config="x/y")
    with pytest.raises(ConfigError, match="--batch-size"):
        resolve(str(folder), options=RunOptions(batch_size=0))


def test_names_that_lead_nowhere(tmp_path):
    for spec, kind, word in (
        ("minature", UnknownNameError, "did you mean miniature"),
        ("diffusers", ConfigError, "name a model"),
        (str(tmp_path / "gone"), MissingError, "no such folder"),
        ("org/gone@v1", MissingError, "negbench prefetch --generator org/gone@v1"),
        (str(tmp_path / "gone.safetensors"), MissingError, "no such file"),
        (str(tmp_path / "model.ckpt"), ConfigError, "pickles"),
        ("../up", MissingError, "no such folder"),
    ):
        with pytest.raises(kind, match=word):
            resolve(spec, options=CPU)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("StableDiffusionInpaintPipeline", "paints into a picture"),
        ("LatentConsistencyModelPipeline", "distilled"),
        ("KandinskyPipeline", "is not supported"),
        ("", "names no pipeline class"),
    ],
)
def test_families_that_are_not_supported(folder, name, reason):
    edit(folder / "model_index.json", _class_name=name)
    refused(folder, NegbenchError, reason)


def test_models_that_need_more_than_text(folder):
    edit(folder / "unet" / "config.json", time_cond_proj_dim=256)
    refused(folder, ConfigError, "distilled")
    edit(folder / "unet" / "config.json", time_cond_proj_dim=None, in_channels=9)
    refused(folder, ConfigError, "9 channels")
    edit(folder / "unet" / "config.json", in_channels=4, class_embed_type="timestep")
    refused(folder, ConfigError, "more than text")


def test_files_that_are_missing_torn_or_pickled(folder):
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = unet.read_bytes()
    unet.write_bytes(whole[:-3])
    refused(folder, DataError, "torn", str(len(whole)))
    unet.write_bytes(b"\xff" * 100)
    refused(folder, DataError, "not a safetensors file")
    unet.write_bytes(struct.pack("<Q", 4) + b"nope" + b"x" * 90)
    refused(folder, DataError, "no safetensors header")
    unet.rename(unet.with_suffix(".bin"))
    refused(folder, ConfigError, "a pickle")
    unet.with_suffix(".bin").unlink()
    refused(folder, MissingError, "diffusion_pytorch_model.safetensors is missing")
    unet.with_suffix(".fp16.safetensors").write_bytes(whole)
    assert plan(folder).pipeline.variants["unet"] == "fp16"
    (folder / "tokenizer" / "tokenizer.json").unlink()
    refused(folder, MissingError, "no tokenizer.json")
    edit(folder / "model_index.json", tokenizer=["evil", "Tokenizer"])
    refused(folder, ConfigError, "tokenizer is a Tokenizer")
    (folder / "vae" / "config.json").write_text("{")
    refused(folder, DataError, "not valid JSON")
    (folder / "vae" / "config.json").unlink()
    refused(folder, MissingError, "vae/config.json is missing")
    (folder / "model_index.json").unlink()
    refused(folder, MissingError, "model_index.json is missing")


def test_a_variant_has_the_identity_of_the_same_bytes(made, folder):
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        path = folder / part / f"{stem}.safetensors"
        path.rename(path.with_suffix(".fp16.safetensors"))
    generator = plan(folder)
    assert generator.ref() == plan(made["sd"]).ref()
    assert generator.load().unet is not None


def test_weights_that_do_not_fit_their_config_are_refused_in_one_line(folder):
    edit(folder / "unet" / "config.json", cross_attention_dim=8)
    generator = plan(folder)
    with pytest.raises(DataError, match="cannot be loaded"):
        generator.load()


def test_what_is_wanted_of_a_repo():
    names = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "safety_checker/model.safetensors",
        "v1-5.ckpt",
        "evil.py",
    ]
    wanted = weights.wanted_files(names, weights=True)
    assert set(names) - set(wanted) == {
        "text_encoder/pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "safety_checker/model.safetensors",
        "v1-5.ckpt",
        "evil.py",
    }
    assert not any("safetensors" in name for name in weights.wanted_files(names, weights=False))
    sharded = [
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    ]
    assert sorted(weights.wanted_files(sharded, weights=True)) == sorted(sharded)


def test_shards_are_all_needed(folder):
    unet = folder / "unet"
    single = unet / "diffusion_pytorch_model.safetensors"
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    single.rename(unet / "part-1.safetensors")
    refused(folder, MissingError, "unet/part-2.safetensors is missing")
    source = weights.locate(str(folder))
    shutil.copy(unet / "part-1.safetensors", unet / "part-2.safetensors")
    shards, _ = weights.component_weights(source, "unet")
    assert [shard.name for shard in shards] == ["part-1.safetensors", "part-2.safetensors"]
    assert inspect(source).digest


def test_checkpoints_in_one_file(tmp_path):
    def write(name, *keys):
        header = {key: {"dtype": "F32", "shape": [], "data_offsets": [0, 4]} for key in keys}
        text = json.dumps(header).encode()
        (tmp_path / name).write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
        return str(tmp_path / name)

    sd = write("sd.safetensors", "model.diffusion_model.input_blocks.0.0.weight")
    with pytest.raises(MissingError, match="configs and tokenizers of stable-diffusion-v1-5/"):
        resolve(sd, options=CPU)
    with pytest.raises(MissingError, match="no folder and no hub repo"):
        resolve(sd, params={"config": "nowhere"}, options=CPU)
    xl = write("xl.safetensors", "conditioner.embedders.1.model.x")
    with pytest.raises(MissingError, match="stabilityai/stable-diffusion-xl-base"):
        resolve(xl, options=CPU)
    lora = write("l.safetensors", "lora_unet_down.weight")
    with pytest.raises(ConfigError, match="this is a LoRA"):
        resolve(lora, options=CPU)
    with pytest.raises(ConfigError, match=r"Stable Diffusion 1\.x"):
        resolve(write("flux.safetensors", "double_blocks.0"), options=CPU)


def test_loras_are_checked_while_planning(tmp_path, monkeypatch):
    header = json.dumps({}).encode()
    path = tmp_path / "style.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    for text, kind, word in (
        ("gone.safetensors", MissingError, "no such file"),
        ("style.bin", ConfigError, "safetensors"),
        (f"{path}:strong", ConfigError, "no number"),
        (f"{path}:inf", ConfigError, "path:scale"),
    ):
        with pytest.raises(kind, match=word):
            read_lora(text)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install peft"):
        read_lora(f"{path}:0.5")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (lora,) = read_lora(f"{path}:0.5")
    assert (lora.path, lora.scale) == (path.resolve(), 0.5)


def test_devices_by_name(monkeypatch):
    assert choose_device("cpu") == "cpu"
    for name, word in (
        ("cupu", "unknown device"),
        ("meta", "not supported"),
        ("cuda:99", "at hand"),
    ):
        with pytest.raises(ConfigError, match=word):
            choose_device(name)


def test_planning_loads_no_torch(made):
    import subprocess

    code = (
        "import sys; from negbench.generators.resolve import resolve;"
        f"g = resolve({str(made['sd'])!r}, params={{'dtype': 'float32'}});"
        "from negbench.types import *;"
        "r = ImageRequest(generator=g.ref(), treatment=Treatment(prompt='a', "
        "guidance=Guidance(kind='window', params={'stop': 3})), seed=1);"
        "assert g.evaluations(r) == 62;"
        "g.check_guidance(r.guidance);"
        "heavy = {'torch', 'diffusers', 'transformers'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
