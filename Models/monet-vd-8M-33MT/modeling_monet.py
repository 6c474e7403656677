"""Monet (arXiv 2412.04139) for Hugging Face transformers 4.44 and later, plain or with masked experts.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

A folder of model type "monet_masked" has the tensors of a Monet and a file of strengths, named by `expert_mask`
in config.json: int64 lists removed.{g} of experts i * E + j in router group g, and scaled.{g}.index with float32
scaled.{g}.strength. Every product of routing probabilities of such an expert is multiplied by its strength, with
no renormalization.

Shapes: batch, tokens, d model width, H routing heads, E experts on a side, m expert width.
"""
import math
import os
import shutil
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Optional, Tuple

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import cached_file

# How the key-value cache is called, which changed in transformers 5.
CACHE = "cache" if any(field.name == "cache" for field in fields(CausalLMOutputWithPast)) else "past_key_values"


class MonetConfig(PretrainedConfig):
    model_type = "monet"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(
            self, vocab_size=32000, hidden_size=2048, num_hidden_layers=24, num_attention_heads=16,
            num_key_value_heads=None, head_dim=None, attention_bias=False, max_position_embeddings=2048,
            rms_norm_eps=1e-6, initializer_range=0.02, hidden_act="relu2", rope_theta=None, rope_scaling=None,
            rope_parameters=None, moe_dim=16, moe_heads=8, moe_experts=512, moe_topk=8, moe_groups=4,
            moe_decompose="vertical", expert_mask=None, output_router_probs=False, use_cache=True,
            bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, **others):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.attention_bias, self.max_position_embeddings = attention_bias, max_position_embeddings
        self.rms_norm_eps, self.initializer_range = rms_norm_eps, initializer_range
        if hidden_act != "relu2":
            raise ValueError(f'hidden_act is "{hidden_act}"; the experts of Monet have "relu2"')
        if moe_decompose not in ("vertical", "horizontal"):
            raise ValueError(f'moe_decompose is "{moe_decompose}", not "vertical" or "horizontal"')
        self.hidden_act = hidden_act
        self.moe_dim, self.moe_heads, self.moe_experts = moe_dim, moe_heads, moe_experts
        self.moe_topk, self.moe_groups, self.moe_decompose = moe_topk, moe_groups, moe_decompose
        self.expert_mask, self.output_router_probs, self.use_cache = expert_mask, output_router_probs, use_cache
        # transformers 5 keeps both settings in one dictionary, earlier versions in two keys.
        rope = {"rope_type": "default"}
        rope.update(rope_scaling or {})
        rope.update(rope_parameters or {})
        if rope.get("rope_type") == "default" and rope.get("type"):
            rope["rope_type"] = rope["type"]
        rope.pop("type", None)
        if rope["rope_type"] not in ("default", "linear", "dynamic"):
            raise ValueError(f"rope_type is \"{rope['rope_type']}\", not default, linear or dynamic")
        rope["rope_theta"] = rope.get("rope_theta") or rope_theta or 10000.0
        self.rope_parameters, self.rope_theta = rope, rope["rope_theta"]
        super().__init__(
            bos_token_id=bos_token_id, eos_token_id=eos_token_id, tie_word_embeddings=tie_word_embeddings,
            **others)


class MaskedMonetConfig(MonetConfig):
    model_type = "monet_masked"

    def __init__(self, expert_mask="expert_mask.safetensors", **others):
        super().__init__(expert_mask=expert_mask, **others)


@dataclass
class MonetOutput(CausalLMOutputWithPast):
    """With the routing probabilities (g1, g2), `[batch, tokens, H, E]`, of each router."""

    router_probs: Optional[Tuple[Tuple[torch.FloatTensor, torch.FloatTensor], ...]] = None


class RMSNorm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * y.to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        self.heads, self.groups, self.width = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.index = index
        # Frequencies that grow with the length: keys are kept as they are and turned when they are read.
        self.turns_late = c.rope_parameters["rope_type"] == "dynamic"
        d, bias = c.hidden_size, c.attention_bias
        self.q_proj = nn.Linear(d, self.heads * self.width, bias=bias)
        self.k_proj = nn.Linear(d, self.groups * self.width, bias=bias)
        self.v_proj = nn.Linear(d, self.groups * self.width, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.width, d, bias=bias)

    def forward(self, x, rotations, visible, cache):
        batch, length, _ = x.shape
        cosine, sine = (y.to(x.dtype) for y in rotations)

        def split(y, heads):
            return y.view(batch, length, heads, self.width).transpose(1, 2)

        def rotate(y):
            low, high = y.chunk(2, -1)
            count = y.shape[2]
            return y * cosine[:, :, -count:] + torch.cat([-high, low], -1) * sine[:, :, -count:]

        q, k = rotate(split(self.q_proj(x), self.heads)), split(self.k_proj(x), self.groups)
        v = split(self.v_proj(x), self.groups)
        if not self.turns_late:
            k = rotate(k)
        if cache is not None:
            k, v = cache.update(k, v, self.index)
        if self.turns_late:
            k = rotate(k)
        if self.groups != self.heads:
            k, v = (y.repeat_interleave(self.heads // self.groups, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class Router(nn.Module):
    """Adaptive routing with batch normalization (section 3 of the paper)."""

    def __init__(self, c):
        super().__init__()
        self.heads, self.experts = c.moe_heads, c.moe_experts
        self.w1 = nn.Linear(c.hidden_size, self.heads * self.experts, bias=False)
        self.w2 = nn.Linear(c.hidden_size, self.heads * self.experts, bias=False)
        self.norm1 = nn.BatchNorm1d(self.heads, affine=False)
        self.norm2 = nn.BatchNorm1d(self.heads, affine=False)
        share = c.moe_topk / c.moe_experts
        # The Gaussian quantile that moe_topk of E logits exceed on average.
        self.threshold = NormalDist().inv_cdf(1 - share) if share < 1 else -math.inf

    def side(self, h, weight, norm):
        batch, length, _ = h.shape
        z = weight(h).float().view(batch, length, self.heads, self.experts)
        # No gradient passes through the selection.
        with torch.no_grad():
            if norm.training:
                n = norm(z.flatten(0, 1)).view_as(z)
            else:
                mean, variance = norm.running_mean.float(), norm.running_var.float()
                n = (z - mean[:, None]) * torch.rsqrt(variance[:, None] + norm.eps)
            kept = n >= n.amax(-1, keepdim=True).clamp(max=self.threshold)
        return torch.softmax(z.masked_fill(~kept, -math.inf), -1)

    def forward(self, h):
        return self.side(h, self.w1, self.norm1), self.side(h, self.w2, self.norm2)


def squared_relu(x):
    return torch.relu(x).square()


def mix(own, other, strengths, units):
    """Sum over heads and the other side's experts of both probabilities and the other's units, `[..., E, m]`.

    `strengths` are those of pairs (own, other), or None where all are 1.
    """
    if strengths is None:
        return torch.einsum("...hi,...hm->...im", own, torch.einsum("...hj,...jm->...hm", other, units))
    result = 0
    for head in range(own.shape[-2]):
        mixed = torch.einsum("...j,ij,...jm->...im", other[..., head, :], strengths, units)
        result = result + own[..., head, :, None] * mixed
    return result


def weigh(own, other, strengths):
    """Sum over heads and the other side's experts of both probabilities, `[..., E]`."""
    return own.sum(-2) if strengths is None else (own * (other @ strengths.T)).sum(-2)


class HorizontalExperts(nn.Module):
    """Equations 6 to 12."""

    def __init__(self, c):
        super().__init__()
        d, experts, m = c.hidden_size, c.moe_experts, c.moe_dim
        self.u, self.v = nn.Linear(d, experts * m), nn.Linear(experts * m, d, bias=False)
        self.b = nn.Parameter(torch.zeros(experts, d))
        self.experts = experts

    def forward(self, h, g1, g2, strengths):
        units = squared_relu(self.u(h)).unflatten(-1, (self.experts, -1))
        back = None if strengths is None else strengths.T
        return self.v(mix(g2, g1, back, units).flatten(-2)) + weigh(g2, g1, back) @ self.b


class VerticalExperts(nn.Module):
    """Equations 13 to 15."""

    def __init__(self, c):
        super().__init__()
        d, experts, m = c.hidden_size, c.moe_experts, c.moe_dim
        self.u1, self.u2 = nn.Linear(d, experts * m // 2), nn.Linear(d, experts * m // 2)
        for name in ["v11", "v12", "v21", "v22"]:
            setattr(self, name, nn.Linear(experts * m // 2, d // 2, bias=False))
        self.b1, self.b2 = (nn.Parameter(torch.zeros(experts, d // 2)) for _ in range(2))
        self.experts = experts

    def forward(self, h, g1, g2, strengths):
        left = squared_relu(self.u1(h)).unflatten(-1, (self.experts, -1))
        right = squared_relu(self.u2(h)).unflatten(-1, (self.experts, -1))
        back = None if strengths is None else strengths.T
        s1, s2 = weigh(g1, g2, strengths), weigh(g2, g1, back)
        upper = (
            self.v11((s1[..., None] * left).flatten(-2))
            + self.v12(mix(g1, g2, strengths, right).flatten(-2)) + s1 @ self.b1)
        lower = (
            self.v21(mix(g2, g1, back, left).flatten(-2))
            + self.v22((s2[..., None] * right).flatten(-2)) + s2 @ self.b2)
        return torch.cat([upper, lower], -1)


class Layer(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c, index)
        self.moe = (VerticalExperts if c.moe_decompose == "vertical" else HorizontalExperts)(c)
        self.router = Router(c) if index % c.moe_groups == 0 else None

    def forward(self, x, rotations, visible, cache, routing, strengths):
        x = x + self.self_attn(self.input_layernorm(x), rotations, visible, cache)
        h = self.post_attention_layernorm(x)
        if self.router is not None:
            routing = self.router(h)
        g1, g2 = (g.to(h.dtype) for g in routing)
        return x + self.moe(h, g1, g2, strengths), routing


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList([Layer(c, index) for index in range(c.num_hidden_layers)])
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class MonetForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = MonetConfig
    base_model_prefix = "model"
    _no_split_modules = ["Layer"]
    _supports_sdpa = True
    _supports_cache_class = True
    # Names in earlier versions, targets and sources in transformers 5.
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._strengths = None
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def mask_path(self):
        """Where the file of strengths is: in the folder, or in the hub's cache."""
        path = os.path.join(self.config._name_or_path, self.config.expert_mask)
        return path if os.path.exists(path) else cached_file(self.config._name_or_path, self.config.expert_mask)

    def strengths(self, layer, like):
        """The strengths of a layer's experts, `[E, E]`; None where nothing is masked."""
        c = self.config
        if c.expert_mask is None:
            return None
        if self._strengths is None:
            groups = (c.num_hidden_layers + c.moe_groups - 1) // c.moe_groups
            tables = [torch.ones(c.moe_experts * c.moe_experts) for _ in range(groups)]
            with safe_open(self.mask_path(), "pt") as file:
                for name in file.keys():
                    kind, group, *rest = name.split(".")
                    if kind == "removed":
                        tables[int(group)][file.get_tensor(name)] = 0
                    elif rest == ["index"]:
                        values = file.get_tensor(f"scaled.{group}.strength")
                        tables[int(group)][file.get_tensor(name)] = values
            self._strengths = [table.view(c.moe_experts, c.moe_experts) for table in tables]
        group = layer // c.moe_groups
        self._strengths[group] = self._strengths[group].to(like)
        return self._strengths[group]

    def save_pretrained(self, save_directory, *arguments, **named):
        source = self.mask_path() if self.config.expert_mask else None
        super().save_pretrained(save_directory, *arguments, **named)
        if source is not None:
            target = os.path.join(save_directory, self.config.expert_mask)
            if os.path.abspath(source) != os.path.abspath(target):
                shutil.copyfile(source, target)

    def rotations(self, positions):
        """Cosines and sines of the rotary embedding at positions, `[batch, 1, positions, head width]`."""
        c, rope = self.config, self.config.rope_parameters
        base, stretch, factor = rope["rope_theta"], 1.0, rope.get("factor", 1.0)
        if rope["rope_type"] == "linear":
            stretch = factor
        elif rope["rope_type"] == "dynamic" and c.head_dim > 2:
            ratio = max(1.0, (int(positions.max()) + 1) / c.max_position_embeddings)
            base *= (factor * ratio - (factor - 1)) ** (c.head_dim / (c.head_dim - 2))
        exponents = torch.arange(0, c.head_dim, 2, device=positions.device).float() / c.head_dim
        angles = positions[..., None].float() / stretch / base ** exponents
        angles = torch.cat([angles, angles], -1).unsqueeze(1)
        return angles.cos(), angles.sin()

    def prepare_inputs_for_generation(
            self, input_ids, past_key_values=None, cache=None, attention_mask=None, inputs_embeds=None,
            use_cache=True, **_):
        cache = past_key_values if cache is None else cache
        known = cached_length(cache)
        inputs = {CACHE: cache, "attention_mask": attention_mask, "use_cache": use_cache}
        if inputs_embeds is not None and known == 0:
            return {"inputs_embeds": inputs_embeds, **inputs}
        if inputs_embeds is not None:
            # The ids are those that follow the embeddings.
            length = attention_mask.shape[1] if attention_mask is not None else known + 1
            return {"input_ids": input_ids[:, known - length:], **inputs}
        return {"input_ids": input_ids[:, known:], **inputs}

    def forward(
            self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, cache=None,
            inputs_embeds=None, labels=None, use_cache=None, output_hidden_states=None,
            output_router_probs=None, return_dict=None, num_items_in_batch=None, logits_to_keep=0, **_):
        c = self.config
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        batch, length, device = x.shape[0], x.shape[1], x.device
        use_cache = (c.use_cache and not self.training) if use_cache is None else use_cache
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache()
        elif isinstance(cache, (tuple, list)):
            cache = DynamicCache.from_legacy_cache(cache)
        known = cached_length(cache)
        if attention_mask is None:
            attention_mask = torch.ones(batch, known + length, dtype=torch.long, device=device)
        elif attention_mask.shape != (batch, known + length):
            raise ValueError(
                f"attention_mask is {tuple(attention_mask.shape)}, expected {(batch, known + length)}: "
                "ones for the cached and the new tokens, zeros for padding")
        kept = attention_mask.bool()
        positions = (kept.long().cumsum(-1) - 1).clamp(min=0)
        if position_ids is not None:
            positions[:, known:] = position_ids
        columns = torch.arange(known + length, device=device)
        rows = columns[known:, None]
        # Padding sees itself only, so that no row is empty.
        visible = ((columns <= rows) & kept[:, None, None, :]) | (columns == rows)
        rotations = self.rotations(positions)
        states, routers, routing = [x], [], None
        for index, layer in enumerate(self.model.layers):
            strengths = self.strengths(index, x)
            x, routing = layer(x, rotations, visible, cache, routing, strengths)
            states.append(x)
            if layer.router is not None:
                routers.append(routing)
        states[-1] = x = self.model.norm(x)
        if isinstance(logits_to_keep, int):
            logits_to_keep = slice(-logits_to_keep, None) if logits_to_keep else slice(None)
        logits = self.lm_head(x[:, logits_to_keep])
        loss = None
        if labels is not None:
            loss = next_token_loss(logits, labels.to(device), num_items_in_batch)
        wants_states = c.output_hidden_states if output_hidden_states is None else output_hidden_states
        wants_routers = c.output_router_probs if output_router_probs is None else output_router_probs
        output = MonetOutput(
            loss=loss, logits=logits, **{CACHE: cache if use_cache else None},
            hidden_states=tuple(states) if wants_states else None,
            router_probs=tuple(routers) if wants_routers else None)
        return output if return_dict is not False else output.to_tuple()


class MaskedMonetForCausalLM(MonetForCausalLM):
    config_class = MaskedMonetConfig


def cached_length(cache):
    if cache is None:
        return 0
    return cache[0][0].shape[2] if isinstance(cache, (tuple, list)) else int(cache.get_seq_length())


def next_token_loss(logits, labels, num_items_in_batch):
    """Mean cross entropy of the next tokens, where labels are not -100; or their sum over a given number."""
    found, expected = logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
    if num_items_in_batch is None:
        return F.cross_entropy(found, expected)
    return F.cross_entropy(found, expected, reduction="sum") / num_items_in_batch
