"""Checkpoints in the layouts of other projects, from small timm models with random weights.

Each function writes out the names that the cited project gives to a network. None of them uses the
tables under test.
"""

from argparse import Namespace

import numpy as np
import timm
import torch

NARROW = {"layers": (1, 2, 1, 1), "channels": (8, 16, 24, 32)}
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 32}
DEPTH = 2


def plain(arch, seed=0, **arguments):
    """A timm model without a classifier whose every weight and buffer is random."""
    model = timm.create_model(arch, num_classes=0, **arguments).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                draws = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(draws + 0.5 if name.endswith("running_var") else 0.4 * draws - 0.2)
    return model


def resnet(seed=0):
    return plain("resnet18", seed, **NARROW)


def vit(seed=0, **arguments):
    return plain("vit_tiny_patch16_224", seed, **{**SMALL, **arguments})


def weights(model):
    return dict(model.state_dict())


def under(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def mlp(prefix, *layers):
    """A projection head: what is no part of the encoder."""
    state = {}
    for layer in layers:
        state[f"{prefix}{layer}.weight"] = torch.ones(4, 4)
        state[f"{prefix}{layer}.bias"] = torch.ones(4)
    return state


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
TRAINER = {"epoch": 3, "arch": "resnet18", "optimizer": OPTIMIZER}


# --- MoCo, SimSiam, SwAV, Barlow Twins, VICReg ----------------------------------------------------


def moco(model, average):
    """facebookresearch/moco: main_moco.py (v2: a head of two layers)."""
    state = under("module.encoder_q.", weights(model)) | mlp("module.encoder_q.fc.", 0, 2)
    state |= under("module.encoder_k.", weights(average)) | mlp("module.encoder_k.fc.", 0, 2)
    state |= {"module.queue": torch.ones(4, 8), "module.queue_ptr": torch.zeros(1).long()}
    return {**TRAINER, "state_dict": state}


def moco_v3(model, average, head):
    """facebookresearch/moco-v3: main_moco.py, moco/builder.py; `head` is fc or head."""
    arch = "resnet18" if head == "fc" else "vit_small"
    state = under("module.base_encoder.", weights(model)) | mlp(f"module.base_encoder.{head}.", 0)
    state |= under("module.momentum_encoder.", weights(average))
    state |= mlp("module.predictor.", 0, 3)
    return {**TRAINER, "arch": arch, "state_dict": state, "scaler": {"scale": 1.0}}


def simsiam(model):
    """facebookresearch/simsiam: simsiam/builder.py."""
    state = under("module.encoder.", weights(model)) | mlp("module.encoder.fc.", 0, 3, 6)
    return {**TRAINER, "state_dict": state | mlp("module.predictor.", 0, 3)}


def swav(model):
    """facebookresearch/swav: main_swav.py, src/resnet50.py."""
    state = under("module.", weights(model)) | mlp("module.projection_head.", 0, 3)
    state["module.prototypes.weight"] = torch.ones(4, 4)
    return {"epoch": 3, "state_dict": state, "optimizer": OPTIMIZER, "amp": {}}


def barlow_twins(model):
    """facebookresearch/barlowtwins: main.py."""
    state = under("module.backbone.", weights(model))
    state |= {
        "module.projector.0.weight": torch.ones(4, 4),
        "module.bn.running_mean": torch.ones(4),
    }
    state |= {"module.bn.running_var": torch.ones(4)}
    return {"epoch": 3, "model": state, "optimizer": OPTIMIZER}


def vicreg(model):
    """facebookresearch/vicreg: main_vicreg.py."""
    state = under("module.backbone.", weights(model)) | mlp("module.projector.", 0, 3, 6)
    return {"epoch": 3, "model": state, "optimizer": OPTIMIZER}


# --- DINO, iBOT, DINOv2, DINOv3, MAE, I-JEPA ------------------------------------------------------


def dino_head():
    state = mlp("head.mlp.", 0, 2, 4)
    state |= {"head.last_layer.weight_g": torch.ones(4, 1)}
    return state | {"head.last_layer.weight_v": torch.ones(4, 4)}


def dino(teacher, student, wrapped=False):
    """facebookresearch/dino: main_dino.py; with batch norms the teacher is wrapped too."""
    of_teacher = under("backbone.", weights(teacher)) | dino_head()
    of_student = under("backbone.", weights(student)) | dino_head()
    return {
        "student": under("module.", of_student),
        "teacher": under("module.", of_teacher) if wrapped else of_teacher,
        "optimizer": OPTIMIZER,
        "epoch": 3,
        "args": Namespace(arch="vit_small", patch_size=16, best=np.float64(0.5)),
        "dino_loss": {"center": torch.ones(1, 4)},
        "fp16_scaler": {"scale": 1.0},
    }


def layer_scaled(state):
    """bytedance/ibot: models/vision_transformer.py, Block with init_values."""
    named = {}
    for name, tensor in state.items():
        for number in (1, 2):
            name = name.replace(f".ls{number}.gamma", f".gamma_{number}")
        named[name] = tensor
    return named


def ibot(teacher, student):
    """bytedance/ibot: main_ibot.py; the student alone has a masked embedding."""
    head = mlp("head.mlp.", 0, 2) | mlp("head.mlp2.", 0) | mlp("head.last_layer2.", 0)
    of_student = under("backbone.", layer_scaled(weights(student))) | head
    of_student["backbone.masked_embed"] = torch.ones(1, 48)
    return {
        "student": under("module.", of_student),
        "teacher": under("backbone.", layer_scaled(weights(teacher))) | head,
        "optimizer": OPTIMIZER,
        "epoch": 3,
        "args": Namespace(arch="vit_small"),
        "ibot_loss": {"center": torch.ones(1, 4)},
    }


def dinov2_names(model, chunks=None, mask_token=True):
    """facebookresearch/dinov2: models/vision_transformer.py.

    Position 0 of the position embedding is the class token's. With registers timm has added it to
    the token already; this takes it out of `model`, whose token then is the sum.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("blocks.") and chunks:
            _, index, rest = name.split(".", 2)
            name = f"blocks.{int(index) // chunks}.{index}.{rest}"
        state[name.replace("mlp.fc1", "mlp.w12" if gated(model) else "mlp.fc1")] = tensor
    if gated(model):
        state = {name.replace("mlp.fc2", "mlp.w3"): tensor for name, tensor in state.items()}
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        first = torch.linspace(-1, 1, state["cls_token"].shape[-1])[None, None]
        token = state["cls_token"].clone()
        with torch.no_grad():
            model.cls_token.copy_(token + first[:, 0])
        state["cls_token"] = token
        state["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
    if mask_token:
        state["mask_token"] = torch.zeros(1, state["cls_token"].shape[-1])
    return state


def gated(model):
    return "Glu" in type(model.blocks[0].mlp).__name__


def dino_trainer(names):
    """facebookresearch/dinov2 and dinov3: train/train.py, eval/*/teacher_checkpoint.pth."""
    heads = mlp("dino_head.mlp.", 0, 2) | mlp("ibot_head.mlp.", 0)
    return {"teacher": under("backbone.", names) | heads}


def dinov3_names(model, bias):
    """facebookresearch/dinov3: models/vision_transformer.py.

    Args:
        model: a ViT of timm with rotary embeddings.
        bias: whether its attention has biases; those of the keys are masked, as DINOv3 does.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(("q_bias", "v_bias", "k_bias")):
            continue
        name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        state["storage_tokens" if name == "reg_token" else name] = tensor
    width = state["cls_token"].shape[-1]
    for index in range(DEPTH):
        attention = model.blocks[index].attn
        zero = torch.zeros(width)
        parts = (attention.q_bias, zero, attention.v_bias) if bias else (zero, zero, zero)
        state[f"blocks.{index}.attn.qkv.bias"] = torch.cat([p.detach() for p in parts])
        mask = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
        state[f"blocks.{index}.attn.qkv.bias_mask"] = mask
    state["rope_embed.periods"] = torch.ones(4)
    state["mask_token"] = torch.zeros(1, width)
    return state | {"local_cls_norm.weight": torch.ones(width)}


def facebook_convnext(model):
    """facebookresearch/ConvNeXt and dinov3: models/convnext.py."""
    state = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "stem":
            name = ".".join(["downsample_layers.0", *parts[1:]])
        elif parts[0] == "stages" and parts[2] == "downsample":
            name = ".".join(["downsample_layers", parts[1], *parts[3:]])
        elif parts[0] == "stages":
            rest = ".".join(parts[4:]).replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
            name = f"stages.{parts[1]}.{parts[3]}.{rest}"
        else:
            name = name.replace("head.norm", "norm")
        state[name] = tensor
    return state | {"head.weight": torch.ones(5, 32), "head.bias": torch.ones(5)}


def mae(model):
    """facebookresearch/mae: models_mae.py, util/misc.py."""
    state = weights(model) | mlp("", "decoder_embed", "decoder_norm", "decoder_pred")
    state |= {"mask_token": torch.ones(1, 1, 4), "decoder_pos_embed": torch.ones(1, 5, 4)}
    state |= mlp("decoder_blocks.0.mlp.", "fc1", "fc2")
    args = Namespace(model="mae_vit_base_patch16")
    return {"model": state, "optimizer": OPTIMIZER, "epoch": 3, "scaler": {}, "args": args}


def ijepa(context, target):
    """facebookresearch/ijepa: src/train.py; there is no class token."""
    return {
        "encoder": under("module.", weights(context)),
        "predictor": mlp("module.predictor_", "embed", "norm"),
        "target_encoder": under("module.", weights(target)),
        "opt": OPTIMIZER,
        "scaler": None,
        "epoch": 3,
        "loss": 0.1,
    }


# --- SimCLR, BYOL, SupContrast --------------------------------------------------------------------


def children(model, prefix, max_pool=True):
    """A ResNet as `nn.Sequential(*children)`: leftthomas/SimCLR: model.py, lightly's examples."""
    first = 4 if max_pool else 3
    numbers = {"conv1": 0, "bn1": 1, **{f"layer{n + 1}": first + n for n in range(4)}}
    state = {}
    for name, tensor in model.state_dict().items():
        child, rest = name.split(".", 1)
        state[f"{prefix}{numbers[child]}.{rest}"] = tensor
    return state


def byol_yaox12(names, other):
    """yaox12/BYOL-PyTorch: model/byol_model.py, trainer/byol_trainer.py."""
    state = under("module.online_network.encoder.", names)
    state |= mlp("module.online_network.projetion.", "l1", "l2")
    state |= under("module.target_network.encoder.", other)
    state |= mlp("module.predictor.predictor.", "l1", "l2")
    config = {"model": {"backbone": {"type": "resnet18"}}}
    return {"config": config, "epoch": 3, "steps": 4, "model": state, "optimizer": OPTIMIZER}


def sthalles(model):
    """sthalles/SimCLR: simclr.py, models/resnet_simclr.py."""
    state = under("backbone.", weights(model)) | mlp("backbone.fc.", 0, 2)
    return {"epoch": 3, "arch": "resnet18", "state_dict": state, "optimizer": OPTIMIZER}


def spijkervet(model):
    """Spijkervet/SimCLR: simclr/simclr.py."""
    state = under("encoder.", weights(model))
    return state | {"projector.0.weight": torch.ones(4, 4), "projector.2.weight": torch.ones(4, 4)}


def supcontrast(model, parallel=False, data="cifar10"):
    """HobbitLong/SupContrast: networks/resnet_big.py, util.py."""
    state = {}
    for name, tensor in model.state_dict().items():
        wrapper = "encoder.module." if parallel else "encoder."
        state[wrapper + name.replace(".downsample.", ".shortcut.")] = tensor
    settings = Namespace(dataset=data, model="resnet18")
    state |= mlp("head.", 0, 2)
    return {"opt": settings, "model": state, "optimizer": OPTIMIZER, "epoch": 3}


def atanov(model):
    """AndrewAtanov/simclr-pytorch: models/encoder.py, train.py; torchvision's fc stays there."""
    state = under("convnet.", weights(model)) | mlp("convnet.", "fc")
    return {"state_dict": state | mlp("projection.", "fc1", "fc2"), "hparams": Namespace(data="x")}


# --- libraries ------------------------------------------------------------------------------------


def vissl(model):
    """facebookresearch/vissl: utils/checkpoint.py, convert_vissl_to_torchvision.py."""
    trunk = under("_feature_blocks.", weights(model))
    networks = {"trunk": trunk, "heads": mlp("0.clf.", 0)}
    return {
        "phase_idx": 3,
        "iteration": 4,
        "type": "consolidated",
        "classy_state_dict": {"base_model": {"model": networks}, "losses": {}},
    }


def mm_vit(model):
    """open-mmlab/mmpretrain: models/backbones/vision_transformer.py."""
    named = {
        "cls_token": "cls_token",
        "pos_embed": "pos_embed",
        "patch_embed.proj.weight": "patch_embed.projection.weight",
        "patch_embed.proj.bias": "patch_embed.projection.bias",
        "norm.weight": "ln1.weight",
        "norm.bias": "ln1.bias",
        "norm_pre.weight": "pre_norm.weight",
        "norm_pre.bias": "pre_norm.bias",
    }
    for index in range(DEPTH):
        for leaf in ("weight", "bias"):
            theirs, ours = f"layers.{index}", f"blocks.{index}"
            named |= {
                f"{ours}.norm1.{leaf}": f"{theirs}.ln1.{leaf}",
                f"{ours}.attn.qkv.{leaf}": f"{theirs}.attn.qkv.{leaf}",
                f"{ours}.attn.proj.{leaf}": f"{theirs}.attn.proj.{leaf}",
                f"{ours}.norm2.{leaf}": f"{theirs}.ln2.{leaf}",
                f"{ours}.mlp.fc1.{leaf}": f"{theirs}.ffn.layers.0.0.{leaf}",
                f"{ours}.mlp.fc2.{leaf}": f"{theirs}.ffn.layers.1.{leaf}",
            }
        # deit3.py
        named[f"{ours}.ls1.gamma"] = f"{theirs}.attn.gamma1.weight"
        named[f"{ours}.ls2.gamma"] = f"{theirs}.ffn.gamma2.weight"
    return {named[name]: tensor for name, tensor in model.state_dict().items()}


def mm_checkpoint(names):
    """open-mmlab/mmengine: runner/checkpoint.py, of a self-supervised method of mmselfsup."""
    state = under("backbone.", names) | mlp("neck.", "fc0") | mlp("head.predictor.", "fc0")
    state |= {"queue": torch.ones(4, 4), "data_preprocessor.mean": torch.ones(3, 1, 1)}
    state |= under("momentum_encoder.module.0.", {"x": torch.ones(2)})
    meta = {"epoch": 3, "iter": 4, "mmengine_version": "0.10"}
    return {"state_dict": state, "meta": meta, "message_hub": {}, "optimizer": OPTIMIZER}


def lightning(state):
    """Lightning: pytorch/trainer/connectors/checkpoint_connector.py."""
    return {
        "epoch": 3,
        "global_step": 4,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [OPTIMIZER],
        "lr_schedulers": [],
    }


def torchvision_vit(model):
    """pytorch/vision: models/vision_transformer.py."""
    named = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj.weight": "conv_proj.weight",
        "patch_embed.proj.bias": "conv_proj.bias",
        "norm.weight": "encoder.ln.weight",
        "norm.bias": "encoder.ln.bias",
    }
    for index in range(DEPTH):
        theirs, ours = f"encoder.layers.encoder_layer_{index}", f"blocks.{index}"
        for leaf in ("weight", "bias"):
            named |= {
                f"{ours}.norm1.{leaf}": f"{theirs}.ln_1.{leaf}",
                f"{ours}.attn.qkv.{leaf}": f"{theirs}.self_attention.in_proj_{leaf}",
                f"{ours}.attn.proj.{leaf}": f"{theirs}.self_attention.out_proj.{leaf}",
                f"{ours}.norm2.{leaf}": f"{theirs}.ln_2.{leaf}",
                f"{ours}.mlp.fc1.{leaf}": f"{theirs}.mlp.0.{leaf}",
                f"{ours}.mlp.fc2.{leaf}": f"{theirs}.mlp.3.{leaf}",
            }
    state = {named[name]: tensor for name, tensor in model.state_dict().items()}
    return state | mlp("heads.", "head")


def torchvision_convnext(model):
    """pytorch/vision: models/convnext.py; the numbers are those of four stages."""
    block = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}
    stages = {f"stages.{stage}": f"features.{number}" for stage, number in enumerate((1, 3, 5, 7))}
    between = {f"stages.{stage}.downsample": f"features.{2 * stage}" for stage in (1, 2, 3)}
    tree = {"classifier.2.weight": torch.ones(5, 4), "classifier.2.bias": torch.ones(5)}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "stem":
            tree[name.replace("stem", "features.0")] = tensor
        elif parts[0] == "head":
            tree[name.replace("head.norm", "classifier.0")] = tensor
        elif parts[2] == "downsample":
            tree[f"{between['.'.join(parts[:3])]}.{'.'.join(parts[3:])}"] = tensor
        elif parts[-1] == "gamma":
            tree[f"{stages['.'.join(parts[:2])]}.{parts[3]}.layer_scale"] = tensor[:, None, None]
        else:
            inner = block[".".join(parts[4:-1])]
            tree[f"{stages['.'.join(parts[:2])]}.{parts[3]}.{inner}.{parts[-1]}"] = tensor
    return tree


def torchvision_swin(model):
    """pytorch/vision: models/swin_transformer.py; the numbers are those of four stages."""
    stages = {f"layers.{stage}": f"features.{number}" for stage, number in enumerate((1, 3, 5, 7))}
    between = {f"layers.{stage}.downsample": f"features.{2 * stage}" for stage in (1, 2, 3)}
    mlp_parts = {"fc1": "0", "fc2": "3"}
    tree = {"head.weight": torch.ones(5, 4), "head.bias": torch.ones(5)}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "patch_embed":
            number = {"proj": "0", "norm": "2"}[parts[1]]
            tree[f"features.0.{number}.{parts[2]}"] = tensor
        elif parts[0] == "norm":
            tree[name] = tensor
        elif parts[2] == "downsample":
            tree[f"{between['.'.join(parts[:3])]}.{'.'.join(parts[3:])}"] = tensor
        else:
            inner = [mlp_parts.get(part, part) for part in parts[4:]]
            tree[f"{stages['.'.join(parts[:2])]}.{parts[3]}.{'.'.join(inner)}"] = tensor
    index = torch.zeros(49 * 49, dtype=torch.long)
    return tree | {"features.1.0.attn.relative_position_index": index}


def hf_top(model, projection="projection."):
    """huggingface/transformers: ViTEmbeddings and the final layer norm."""
    state = model.state_dict()
    named = {
        "embeddings.cls_token": state["cls_token"],
        f"embeddings.patch_embeddings.{projection}weight": state["patch_embed.proj.weight"],
        f"embeddings.patch_embeddings.{projection}bias": state["patch_embed.proj.bias"],
    }
    if "pos_embed" in state:
        named["embeddings.position_embeddings"] = state["pos_embed"]
    return named


def hf_vit(model):
    """huggingface/transformers: models/vit/modeling_vit.py."""
    state = model.state_dict()
    named = hf_top(model)
    for index in range(DEPTH):
        theirs, ours = f"encoder.layer.{index}", f"blocks.{index}"
        for leaf in ("weight", "bias"):
            query, key, value = state[f"{ours}.attn.qkv.{leaf}"].chunk(3)
            named |= {
                f"{theirs}.attention.attention.query.{leaf}": query.clone(),
                f"{theirs}.attention.attention.key.{leaf}": key.clone(),
                f"{theirs}.attention.attention.value.{leaf}": value.clone(),
                f"{theirs}.attention.output.dense.{leaf}": state[f"{ours}.attn.proj.{leaf}"],
                f"{theirs}.intermediate.dense.{leaf}": state[f"{ours}.mlp.fc1.{leaf}"],
                f"{theirs}.output.dense.{leaf}": state[f"{ours}.mlp.fc2.{leaf}"],
                f"{theirs}.layernorm_before.{leaf}": state[f"{ours}.norm1.{leaf}"],
                f"{theirs}.layernorm_after.{leaf}": state[f"{ours}.norm2.{leaf}"],
            }
    for leaf in ("weight", "bias"):
        named[f"layernorm.{leaf}"] = state[f"norm.{leaf}"]
    return named


def hf_dinov2(model):
    """huggingface/transformers: models/dinov2/modeling_dinov2.py, dinov2_with_registers."""
    original = dinov2_names(model)
    first, second = ("w12", "w3") if gated(model) else ("fc1", "fc2")
    theirs_first, theirs_second = ("weights_in", "weights_out") if gated(model) else ("fc1", "fc2")
    named = {
        "embeddings.cls_token": original["cls_token"],
        "embeddings.mask_token": original["mask_token"],
        "embeddings.position_embeddings": original["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": original["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": original["patch_embed.proj.bias"],
        "layernorm.weight": original["norm.weight"],
        "layernorm.bias": original["norm.bias"],
    }
    if "register_tokens" in original:
        named["embeddings.register_tokens"] = original["register_tokens"]
    for index in range(DEPTH):
        theirs, ours = f"encoder.layer.{index}", f"blocks.{index}"
        named[f"{theirs}.layer_scale1.lambda1"] = original[f"{ours}.ls1.gamma"]
        named[f"{theirs}.layer_scale2.lambda1"] = original[f"{ours}.ls2.gamma"]
        for leaf in ("weight", "bias"):
            query, key, value = original[f"{ours}.attn.qkv.{leaf}"].chunk(3)
            named |= {
                f"{theirs}.norm1.{leaf}": original[f"{ours}.norm1.{leaf}"],
                f"{theirs}.norm2.{leaf}": original[f"{ours}.norm2.{leaf}"],
                f"{theirs}.attention.attention.query.{leaf}": query.clone(),
                f"{theirs}.attention.attention.key.{leaf}": key.clone(),
                f"{theirs}.attention.attention.value.{leaf}": value.clone(),
                f"{theirs}.attention.output.dense.{leaf}": original[f"{ours}.attn.proj.{leaf}"],
                f"{theirs}.mlp.{theirs_first}.{leaf}": original[f"{ours}.mlp.{first}.{leaf}"],
                f"{theirs}.mlp.{theirs_second}.{leaf}": original[f"{ours}.mlp.{second}.{leaf}"],
            }
    return named


def hf_dinov3(model, bias):
    """huggingface/transformers: models/dinov3_vit/modeling_dinov3_vit.py; keys have no bias."""
    state = model.state_dict()
    named = hf_top(model, projection="")
    named |= {
        "embeddings.register_tokens": state["reg_token"],
        "embeddings.mask_token": torch.zeros(1, 1, state["cls_token"].shape[-1]),
        "norm.weight": state["norm.weight"],
        "norm.bias": state["norm.bias"],
    }
    for index in range(DEPTH):
        theirs, ours = f"layer.{index}", f"blocks.{index}"
        attention = model.blocks[index].attn
        query, key, value = state[f"{ours}.attn.qkv.weight"].chunk(3)
        zero = torch.zeros(len(query))
        named |= {
            f"{theirs}.attention.q_proj.weight": query.clone(),
            f"{theirs}.attention.k_proj.weight": key.clone(),
            f"{theirs}.attention.v_proj.weight": value.clone(),
            f"{theirs}.attention.q_proj.bias": attention.q_bias.detach() if bias else zero,
            f"{theirs}.attention.v_proj.bias": attention.v_bias.detach() if bias else zero.clone(),
            f"{theirs}.layer_scale1.lambda1": state[f"{ours}.gamma_1"],
            f"{theirs}.layer_scale2.lambda1": state[f"{ours}.gamma_2"],
        }
        for leaf in ("weight", "bias"):
            named |= {
                f"{theirs}.norm1.{leaf}": state[f"{ours}.norm1.{leaf}"],
                f"{theirs}.norm2.{leaf}": state[f"{ours}.norm2.{leaf}"],
                f"{theirs}.attention.o_proj.{leaf}": state[f"{ours}.attn.proj.{leaf}"],
                f"{theirs}.mlp.up_proj.{leaf}": state[f"{ours}.mlp.fc1.{leaf}"],
                f"{theirs}.mlp.down_proj.{leaf}": state[f"{ours}.mlp.fc2.{leaf}"],
            }
    return named


def hf_resnet(model):
    """huggingface/transformers: models/resnet/modeling_resnet.py."""
    kinds = {"conv": "convolution", "bn": "normalization"}
    state = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if not parts[0].startswith("layer"):
            theirs = "embedder.embedder." + kinds[parts[0][:-1]]
        elif parts[2] == "downsample":
            where = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
            theirs = f"{where}.shortcut.{('convolution', 'normalization')[int(parts[3])]}"
        else:
            where = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
            theirs = f"{where}.layer.{int(parts[2][-1]) - 1}.{kinds[parts[2][:-1]]}"
        state[f"{theirs}.{parts[-1]}"] = tensor
    return state
