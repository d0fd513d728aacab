"""How a run is computed: what is left open is chosen, what was begun is kept, and all of it is done."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch

from runner.machine import resources
from runner.machine.setup import Setup, choose_setup, shared_precision
from runner.train import engine
from runner.train.provenance import free_memory
from runner.train.train_state import TrainState
from tests.helpers.training import assert_same, execution, setup_of, start, take_step, train, weights


def test_what_is_left_open_is_chosen_for_the_machine(make_run):
    recipe = make_run("recipe").experiment.recipe
    setup = choose_setup(recipe, execution(), processes=2, threads=3)
    assert setup == Setup("cpu", "fp32", 2, 1, 3, 0, True, None, "fast")
    assert choose_setup(recipe, execution(device_batch=32, threads=5, workers=4), 2, 3).accumulation == 4


def test_what_a_run_began_with_is_kept_unless_it_is_changed_on_purpose(make_run):
    recipe = make_run("recipe").experiment.recipe
    begun = Setup("cpu", "bf16", 1, 4, 7, 2, True, None, "fast")
    assert choose_setup(recipe, execution(), 1, 1, begun) == Setup("cpu", "bf16", 1, 4, 7, 0, True, None, "fast")
    assert choose_setup(recipe, execution(threads=2, device_batch=256), 1, 1, begun).threads == 2
    assert choose_setup(recipe, execution(), 2, 1, begun).accumulation == 1  # another layout is anew


def test_what_is_not_here_is_refused(tiny_run):
    recipe = tiny_run("recipe").experiment.recipe
    with pytest.raises(ValueError, match=r"execution\.device=cuda requires a CUDA device"):
        choose_setup(recipe, execution(device="cuda"), 1, 1)
    with pytest.raises(ValueError, match=r"a backend of torch.compile: .*inductor.* \(got 'inductr'\)"):
        choose_setup(recipe, execution(compile="inductr"), 1, 1)
    synchronized = tiny_run("recipe", sync_batch_norm=True).experiment.recipe
    with pytest.raises(ValueError, match="sync_batch_norm=true requires GPUs or one process"):
        choose_setup(synchronized, execution(), 2, 1)
    assert choose_setup(synchronized, execution(), 1, 1).processes == 1  # one process's batch is all of it


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_in_fp32_weights_and_is_recorded(tiny_run, tmp_path, precision):
    run = tiny_run("layer-scale", precision=precision, epochs=1, clip_gradients=1.0)
    train(run, tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["execution"]["precision"] == precision
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path).values() if tensor.is_floating_point())
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert bool(saved["scaler"]) == (precision == "fp16")  # loss scaling, and its state with the rest


@pytest.fixture
def gpu(monkeypatch):
    """A machine that says it has a GPU; returns a function that says whether that has bf16 units."""
    monkeypatch.setattr("runner.machine.resources.available_gpus", lambda execution: 1)

    def has_bf16(has):  # older ones compute in bf16 too, but slowly, by emulation
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: has or including_emulation
        )

    return has_bf16


@pytest.mark.parametrize(("has_units", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_bf16_units_computes_in_fp16(make_run, gpu, has_units, expected):
    gpu(has_units)
    recipe = make_run(precision="auto").experiment.recipe
    assert choose_setup(recipe, execution(device="cuda", threads=1), 1, 1).precision == expected


def test_gpus_with_and_without_bf16_units_share_a_run_in_fp16():
    assert shared_precision(["bf16", "fp16"]) == "fp16" and shared_precision(["bf16", "bf16"]) == "bf16"


@pytest.mark.parametrize(("visible", "processes"), [(0, 1), (1, 1), (4, 4), (3, 2)])
def test_a_run_takes_the_gpus_that_are_visible_and_can_share_its_batch(make_run, monkeypatch, visible, processes):
    """None with an empty CUDA_VISIBLE_DEVICES; one with an instance of MIG. torch counts them, by number or UUID."""
    monkeypatch.setattr(resources, "GPU_DRIVERS", (Path.cwd(),))  # so there is a driver
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    recipe = make_run(batch_size=32).experiment.recipe
    assert resources.available_gpus(execution()) == visible
    assert resources.default_processes(execution(), [recipe]) == processes
    if not visible:
        with pytest.raises(ValueError, match=r"execution\.device=cuda requires a CUDA device"):
            choose_setup(recipe, execution(device="cuda"), 1, 1)


def test_of_gpus_that_mig_divides_a_run_takes_one_instance(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\necho '  MIG 1g.10gb Device 0: (UUID: MIG-2)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(resources, "GPU_DRIVERS", (tmp_path,))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert resources.available_gpus(execution()) == 8
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resources.available_gpus(execution()) == 1


def test_settings_of_gpus_are_recorded_and_applied_to_gpus_alone(make_run, gpu, monkeypatch):
    gpu(True)
    recipe = make_run(precision="fp32").experiment.recipe
    on_gpu = choose_setup(recipe, execution(device="cuda", threads=1, tf32=True, prefetch=4), 1, 1)
    assert (on_gpu.precision, on_gpu.cudnn_benchmark, on_gpu.prefetch) == ("tf32", True, 4)
    on_cpu = choose_setup(recipe, execution(device="cpu", threads=1, tf32=True), 1, 1)
    assert (on_cpu.precision, on_cpu.cudnn_benchmark) == ("fp32", False)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    for setup in (on_gpu, on_cpu):
        setup.prepare()
        applied = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
        assert applied == (setup is on_gpu,) * 3


def test_out_of_memory_takes_fewer_images_at_a_time_and_is_recorded(tiny_run, tmp_path, monkeypatch, capsys):
    """As if a device had room for 16 images."""
    backward = TrainState.backward

    def backward_with_little_memory(train_state, images, targets, **parts):
        if len(images) > 16:
            raise torch.OutOfMemoryError
        return backward(train_state, images, targets, **parts)

    monkeypatch.setattr(TrainState, "backward", backward_with_little_memory)
    networks = []
    monkeypatch.setattr(engine, "free_memory", lambda device: networks.append(living_networks(device)))
    run = tiny_run("recipe", batch_size=64)
    train(run, tmp_path / "auto")
    assert networks == [0, 0]  # none is held by the next attempt
    assert "out of memory with 32 images at a time: from the last checkpoint on in 4 parts" in capsys.readouterr().out
    assert json.loads((tmp_path / "auto" / "manifest.json").read_text())["execution"]["accumulation"] == 4
    train(run, tmp_path / "chosen", device_batch=16)
    assert_same(tmp_path / "auto", tmp_path / "chosen")
    message = r"no memory for 32 images of pico/recipe-s0 at a time; set execution\.device_batch to fewer"
    with pytest.raises(ValueError, match=message):
        train(run, tmp_path / "refused", device_batch=32)


def living_networks(device):
    free_memory(device)
    return sum(type(each) is TrainState for each in gc.get_objects())


@pytest.mark.parametrize(("device", "expected"), [("cuda", "fp16"), ("cpu", "automatic")])
def test_the_authors_train_in_fp16_where_there_is_a_gpu(make_run, gpu, device, expected):
    gpu(True)
    recipes = [make_run(precision=precision).experiment.recipe for precision in ("fp16-on-cuda", "auto")]
    how = execution(device=device, threads=1)
    authors, automatic = (choose_setup(recipe, how, 1, 1) for recipe in recipes)
    assert authors.precision == (automatic.precision if expected == "automatic" else expected)


def test_precision_reaches_the_convolutions(tiny_run, tmp_path):
    dtypes = {}
    for precision in ("fp32", "bf16", "fp16"):
        training = start(tiny_run("layer-scale", precision=precision), tmp_path)
        training.stream = training.batches.stream(0, 0)
        stem = next(module for module in training.model.modules() if isinstance(module, torch.nn.Conv2d))
        stem.register_forward_hook(lambda _, given, output, name=precision: dtypes.update({name: output.dtype}))
        take_step(training)
    assert dtypes == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def test_gradients_are_clipped_to_the_norm(tiny_run, tmp_path):
    norms = []
    for clip in (None, 0.05):
        training = start(tiny_run("layer-scale", clip_gradients=clip), tmp_path)
        training.stream = training.batches.stream(0, 0)
        take_step(training)
        gradients = [parameter.grad for parameter in training.model.parameters()]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
    assert norms[0] > 0.1 and norms[1] == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_order_in_memory_is_the_one_asked_for(tiny_run, tmp_path, channels_last):
    training = start(tiny_run("layer-scale"), tmp_path, channels_last=channels_last)
    images, _ = next(training.batches.stream(0, 0))
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=wanted)
    assert all(p.is_contiguous(memory_format=wanted) for p in training.model.parameters() if p.ndim == 4)


@pytest.mark.slow
@pytest.mark.parametrize("rung", ["recipe", "layer-scale"])
def test_compiled_networks_train_to_the_same(tiny_run, tmp_path, rung):
    """Through torch.compile's machinery; inductor's kernels aside, which need a C++ compiler."""
    run = tiny_run(rung, epochs=1, drop_path=0.0)
    train(run, tmp_path / "eager")
    train(run, tmp_path / "compiled", compile="aot_eager")
    compiled_weights, eager_weights = weights(tmp_path / "compiled"), weights(tmp_path / "eager")
    assert compiled_weights.keys() == eager_weights.keys()
    assert all(torch.allclose(compiled_weights[name], eager_weights[name], atol=1e-4) for name in compiled_weights)
    assert json.loads((tmp_path / "compiled" / "manifest.json").read_text())["execution"]["compile"] == "aot_eager"


def test_batch_norm_is_synchronized_where_it_is_asked_for(tiny_run):
    """The conversion is torch's; its statistics over processes can only be had on GPUs."""
    import roadmap
    from runner.train.train_state import _prepared  # in public it is for GPUs alone

    run = tiny_run("recipe")
    model = roadmap.build(run.experiment.design, 10)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepared = _prepared(model, True, setup_of(run))
    norms = [module for module in prepared.modules() if "BatchNorm" in type(module).__name__]
    assert norms and all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms)
    assert all(torch.equal(tensor, before[name]) for name, tensor in prepared.state_dict().items())


def test_raw_and_averaged_weights_are_evaluated_separately_and_averaging_has_its_decay(tiny_run, tmp_path):
    training = start(tiny_run("layer-scale", ema=0.5), tmp_path)
    training.stream = training.batches.stream(0, 0)
    name, raw = next(iter(training.model.named_parameters()))
    expected = raw.detach().clone()
    for step in range(3):
        take_step(training)
        expected = raw.detach().clone() if step == 0 else 0.5 * expected + 0.5 * raw.detach()
    averaged = dict(training.ema.module.named_parameters())[name]
    assert torch.allclose(averaged, expected, atol=1e-6) and not torch.equal(averaged, raw)


def test_only_small_runs_on_cpus_go_side_by_side(tiny_run):
    from runner.launch.local import parallelism

    small, large = tiny_run("recipe", batch_size=64), tiny_run("recipe", batch_size=64, image_size=512)
    assert parallelism([small] * 5, cores=4) == (4, 1) and parallelism([small], cores=4) == (1, 1)
    assert parallelism([small, large], cores=4) == (1, 4)
    assert parallelism([small] * 5, cores=4, processes=2) == (1, 2)
    assert parallelism([small] * 5, cores=4, gpus=1) == (1, 4)


def test_a_run_resumes_with_the_augmentation_that_it_began_with(tiny_run):
    recipe = tiny_run("recipe").experiment.recipe
    chosen = choose_setup(recipe, execution(augment="reference"), 1, 1)
    assert chosen.augment == "reference"
    assert choose_setup(recipe, execution(), 1, 1).augment == "fast"
    assert choose_setup(recipe, execution(), 1, 1, stored=chosen).augment == "reference"
