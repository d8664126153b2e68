"""The recipes of docs/trainers.md, each run: Hugging Face Trainer, Accelerate, Lightning."""

import warnings

import pytest
import torch
from cases import llama, mlp
from torch import nn
from torch.utils.data import DataLoader, Dataset

import paramz

IDS = torch.randint(4, 40, (8, 8), generator=torch.Generator().manual_seed(1))
WIDTH, BASE, LR = 64, 32, 2**-7


class Texts(Dataset):
    def __len__(self):
        return len(IDS)

    def __getitem__(self, i):
        return {"input_ids": IDS[i], "labels": IDS[i]}


def by_hand(steps=3, clip=None):
    """The same run as a plain loop: the last loss, and the weights."""
    torch.manual_seed(0)
    model = llama(WIDTH)
    plan = paramz.parametrize_(model, "mup", base=BASE)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=LR))
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        if clip is not None:
            paramz.clip_grad_norm_(plan, model, clip)
        optimizer.step()
    return model.state_dict()


def equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.allclose(v, other[k], atol=1e-5) for k, v in one.items())


def trainer_arguments(folder, **changes):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    settings = {
        "max_steps": 3, "per_device_train_batch_size": 8, "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0, "use_cpu": True, "report_to": [], "save_strategy": "no",
        "disable_tqdm": True, "logging_strategy": "no", **changes,
    }  # fmt: skip
    return transformers.TrainingArguments(output_dir=str(folder), **settings)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_hugging_face_trainer(tmp_path, clip):
    from transformers import Trainer

    arguments = trainer_arguments(tmp_path)
    torch.manual_seed(0)
    model = llama(WIDTH)
    # The recipe.
    plan = paramz.parametrize_(model, "mup", base=BASE)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=LR), lr=LR)
    callbacks = [] if clip is None else [paramz.hf.Clip(plan, clip)]
    trainer = Trainer(
        model, arguments, train_dataset=Texts(), optimizers=(optimizer, None), callbacks=callbacks
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        paramz.hf.check_arguments(arguments)
    trainer.train()
    equal(model.state_dict(), by_hand(clip=clip))
    if clip is not None:
        assert not all(torch.allclose(v, model.state_dict()[k]) for k, v in by_hand().items())


def test_clipping_refuses_an_optimizer_that_is_not_the_plans(tmp_path):
    from transformers import Trainer

    model = llama(WIDTH)
    plan = paramz.parametrize_(model, "mup", base=BASE)

    def trainer(*optimizers):
        return Trainer(
            model, trainer_arguments(tmp_path), train_dataset=Texts(),
            optimizers=optimizers or (None, None), callbacks=[paramz.hf.Clip(plan, 1.0)],
        )  # fmt: skip

    with pytest.raises(ValueError, match="AdamW has 2 groups of .* tensors that no plan made"):
        trainer().train()
    adamw = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=LR), lr=LR)
    floor = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, 100, eta_min=1e-3)
    with pytest.raises(ValueError, match="CosineAnnealingLR breaks the ratios"):
        trainer(adamw, floor).train()
    of_deepspeed = trainer_arguments(tmp_path)
    of_deepspeed.deepspeed_plugin = object()  # as it is under DeepSpeed
    with pytest.raises(ValueError, match="Clip would clip nothing: set gradient_clipping"):
        paramz.hf.Clip(plan, 1.0).on_train_begin(of_deepspeed, None, None, optimizer=adamw)


def test_clipping_sees_gradients_without_the_factor_of_fp16():
    accelerate = pytest.importorskip("accelerate")
    accelerate.Accelerator(cpu=True)  # its optimizer asks for the state that this sets up
    model = mlp(32)
    plan = paramz.parametrize_(model, "mup", base=mlp, base_width=8)
    optimizer = torch.optim.SGD(plan.param_groups(model, "sgd", lr=LR))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    wrapped = accelerate.optimizer.AcceleratedOptimizer(optimizer, scaler=scaler)
    nn.functional.cross_entropy(model(X), Y).backward()
    norm = float(paramz.clip_grad_norm_(plan, model, torch.inf))
    expected = [p.grad.clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad.mul_(2.0**10)
    scaler.scale(torch.ones(()))
    for _ in range(2):  # the second time the factor is off already
        paramz.hf.Clip(plan, 2 * norm).on_pre_optimizer_step(
            None, None, None, model=model, optimizer=wrapped
        )
    for p, grad in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, grad, rtol=1e-5)


def test_arguments_of_the_trainer_that_move_with_width(tmp_path):
    arguments = trainer_arguments(
        tmp_path, max_grad_norm=1.0, lr_scheduler_type="cosine_with_min_lr"
    )
    with pytest.warns(UserWarning, match=r"max_grad_norm=1.0 clips by the plain global norm") as w:
        paramz.hf.check_arguments(arguments)
    assert "callbacks=[paramz.hf.Clip(plan, max_norm)]" in str(w[0].message)
    assert "'cosine_with_min_lr' ends at an absolute learning rate" in str(w[1].message)


def test_accelerate():
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    model = llama(WIDTH)
    loader = DataLoader(Texts(), batch_size=8)
    accelerator = accelerate.Accelerator(cpu=True)
    # The recipe.
    plan = paramz.parametrize_(model, "mup", base=BASE)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=LR))
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for _ in range(3):
        for batch in loader:
            optimizer.zero_grad()
            accelerator.backward(model(**batch).loss)
            optimizer.step()
    equal(accelerator.unwrap_model(model).state_dict(), by_hand())
    assert paramz.plan_of(accelerator.unwrap_model(model)) == plan


def test_fabric():
    """As litgpt has it: groups of what Fabric has set up, around a compiled model."""
    fabric = pytest.importorskip("lightning").Fabric(accelerator="cpu", devices=1)
    model = mlp(32)
    plan = paramz.parametrize_(model, "mup", base=mlp, base_width=8)
    wrapped = fabric.setup_module(torch.compile(model, backend="eager"))
    groups = plan.param_groups(wrapped, "adamw", lr=LR)
    plan.check(fabric.setup_optimizers(torch.optim.AdamW(groups)), model=wrapped)
    plain = plan.param_groups(model, "adamw", lr=LR)
    assert [group["lr"] for group in groups] == [group["lr"] for group in plain]


X, Y = torch.randn(16, 6, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = mlp(32)
            # The recipe: plan where the model is built, groups where the optimizer is.
            self.plan = paramz.parametrize_(self.net, "mup", base=mlp, base_width=8)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.plan.param_groups(self.net, "adamw", lr=LR))

        def configure_gradient_clipping(self, optimizer, gradient_clip_val, **ignored):
            paramz.clip_grad_norm_(self.plan, self.net, 0.05)

        def on_save_checkpoint(self, checkpoint):
            checkpoint["paramz"] = self.plan.to_json()

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    torch.manual_seed(0)
    module = Module()
    data = DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=16)
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")

    torch.manual_seed(0)
    model = mlp(32)
    plan = paramz.parametrize_(model, "mup", base=mlp, base_width=8)
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=LR))
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        paramz.clip_grad_norm_(plan, model, 0.05)
        optimizer.step()
    equal(module.net.state_dict(), model.state_dict())
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert paramz.Plan.from_json(saved["paramz"]) == plan
