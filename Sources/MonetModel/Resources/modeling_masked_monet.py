"""Monet with experts removed, weakened or amplified, for Hugging Face transformers.

A checkpoint folder of model type "monet_masked" has the tensors of a Monet and a file of strengths,
named by `expert_mask` in config.json: int64 lists removed.{g} of experts i * E + j in router group g, and
scaled.{g}.index with float32 scaled.{g}.strength. Every product of routing probabilities of such an expert
is multiplied by its strength, with no renormalization.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
"""
import math
import os
from statistics import NormalDist

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import cached_file


class MaskedMonetConfig(PretrainedConfig):
    model_type = "monet_masked"

    def __init__(
            self, vocab_size=32000, hidden_size=2048, num_hidden_layers=24, num_attention_heads=16,
            num_key_value_heads=None, head_dim=None, attention_bias=False, max_position_embeddings=2048,
            rms_norm_eps=1e-6, monet_rope_theta=None, rope_theta=10000.0, rope_scaling=None,
            moe_dim=16, moe_heads=8, moe_experts=512, moe_topk=8, moe_groups=4, moe_decompose="vertical",
            expert_mask="expert_mask.safetensors", use_cache=False, **others):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.attention_bias, self.max_position_embeddings = attention_bias, max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        # Under a name of its own too: newer versions of transformers rearrange the usual keys.
        self.monet_rope_theta = monet_rope_theta or rope_theta
        self.monet_rope_scaling = others.pop("monet_rope_scaling", None) or rope_scaling
        self.moe_dim, self.moe_heads, self.moe_experts = moe_dim, moe_heads, moe_experts
        self.moe_topk, self.moe_groups, self.moe_decompose = moe_topk, moe_groups, moe_decompose
        self.expert_mask = expert_mask
        super().__init__(use_cache=False, **others)


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
    def __init__(self, c):
        super().__init__()
        self.heads, self.groups, self.width = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        d, bias = c.hidden_size, c.attention_bias
        self.q_proj = nn.Linear(d, self.heads * self.width, bias=bias)
        self.k_proj = nn.Linear(d, self.groups * self.width, bias=bias)
        self.v_proj = nn.Linear(d, self.groups * self.width, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.width, d, bias=bias)

    def forward(self, x, cosine, sine, visible):
        batch, length, _ = x.shape

        def split(y, heads):
            return y.view(batch, length, heads, self.width).transpose(1, 2)

        def rotate(y):
            low, high = y.chunk(2, -1)
            return y * cosine.to(y.dtype) + torch.cat([-high, low], -1) * sine.to(y.dtype)

        q, k = rotate(split(self.q_proj(x), self.heads)), rotate(split(self.k_proj(x), self.groups))
        v = split(self.v_proj(x), self.groups)
        if self.groups != self.heads:
            k, v = (y.repeat_interleave(self.heads // self.groups, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class Router(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.experts = c.moe_heads, c.moe_experts
        self.w1 = nn.Linear(c.hidden_size, self.heads * self.experts, bias=False)
        self.w2 = nn.Linear(c.hidden_size, self.heads * self.experts, bias=False)
        self.norm1 = nn.BatchNorm1d(self.heads, affine=False)
        self.norm2 = nn.BatchNorm1d(self.heads, affine=False)
        self.threshold = NormalDist().inv_cdf(1 - c.moe_topk / c.moe_experts) if c.moe_topk < c.moe_experts else -math.inf

    def side(self, h, weight, norm):
        batch, length, _ = h.shape
        z = weight(h).float().view(batch, length, self.heads, self.experts)
        # The running statistics always: which experts are selected is not up for training here.
        mean = norm.running_mean.float()[:, None]
        n = (z - mean) * torch.rsqrt(norm.running_var.float()[:, None] + norm.eps)
        kept = n >= n.amax(-1, keepdim=True).clamp(max=self.threshold)
        return torch.softmax(z.masked_fill(~kept, -math.inf), -1)

    def forward(self, h):
        return self.side(h, self.w1, self.norm1), self.side(h, self.w2, self.norm2)


def squared_relu(x):
    return torch.relu(x).square()


class HorizontalExperts(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, experts, m = c.hidden_size, c.moe_experts, c.moe_dim
        self.u, self.v = nn.Linear(d, experts * m), nn.Linear(experts * m, d, bias=False)
        self.b = nn.Parameter(torch.zeros(experts, d))
        self.experts = experts

    def forward(self, h, g1, g2, strengths):
        a = squared_relu(self.u(h)).unflatten(-1, (self.experts, -1))
        c, weight = 0, 0
        for head in range(g1.shape[2]):
            left, right = g1[:, :, head].to(h.dtype), g2[:, :, head].to(h.dtype)
            mixed = torch.einsum("bti,ij,btim->btjm", left, strengths, a)
            c = c + right.unsqueeze(-1) * mixed
            weight = weight + right * (left @ strengths)
        return self.v(c.flatten(2)) + weight @ self.b.to(h.dtype)


class VerticalExperts(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, experts, m = c.hidden_size, c.moe_experts, c.moe_dim
        self.u1, self.u2 = nn.Linear(d, experts * m // 2), nn.Linear(d, experts * m // 2)
        for name in ["v11", "v12", "v21", "v22"]:
            setattr(self, name, nn.Linear(experts * m // 2, d // 2, bias=False))
        self.b1, self.b2 = (nn.Parameter(torch.zeros(experts, d // 2)) for _ in range(2))
        self.experts = experts

    def forward(self, h, g1, g2, strengths):
        a = squared_relu(self.u1(h)).unflatten(-1, (self.experts, -1))
        e = squared_relu(self.u2(h)).unflatten(-1, (self.experts, -1))
        s1, s2, to_left, to_right = 0, 0, 0, 0
        for head in range(g1.shape[2]):
            left, right = g1[:, :, head].to(h.dtype), g2[:, :, head].to(h.dtype)
            s1 = s1 + left * (right @ strengths.T)
            s2 = s2 + right * (left @ strengths)
            to_left = to_left + left.unsqueeze(-1) * torch.einsum("btj,ij,btjm->btim", right, strengths, e)
            to_right = to_right + right.unsqueeze(-1) * torch.einsum("bti,ij,btim->btjm", left, strengths, a)
        upper = (
            self.v11((s1.unsqueeze(-1) * a).flatten(2)) + self.v12(to_left.flatten(2))
            + s1 @ self.b1.to(h.dtype))
        lower = (
            self.v21(to_right.flatten(2)) + self.v22((s2.unsqueeze(-1) * e).flatten(2))
            + s2 @ self.b2.to(h.dtype))
        return torch.cat([upper, lower], -1)


class Layer(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.moe = (VerticalExperts if c.moe_decompose == "vertical" else HorizontalExperts)(c)
        if index % c.moe_groups == 0:
            self.router = Router(c)

    def forward(self, x, rotations, visible, routing, strengths):
        x = x + self.self_attn(self.input_layernorm(x), *rotations, visible)
        h = self.post_attention_layernorm(x)
        if hasattr(self, "router"):
            routing = self.router(h)
        return x + self.moe(h, *routing, strengths.to(h.dtype)), routing


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList([Layer(c, index) for index in range(c.num_hidden_layers)])
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class MaskedMonetForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = MaskedMonetConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._strengths = None
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(std=0.02)

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def strengths(self, device):
        """The strengths of every router group's experts, [E, E]; read with the first tokens."""
        if self._strengths is None:
            c = self.config
            groups = (c.num_hidden_layers + c.moe_groups - 1) // c.moe_groups
            tables = [torch.ones(c.moe_experts * c.moe_experts) for _ in range(groups)]
            folder = c._name_or_path
            path = os.path.join(folder, c.expert_mask)
            if not os.path.exists(path):
                path = cached_file(folder, c.expert_mask)
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    kind, group, *rest = name.split(".")
                    if kind == "removed":
                        tables[int(group)][file.get_tensor(name)] = 0
                    elif rest == ["index"]:
                        values = file.get_tensor(f"scaled.{group}.strength")
                        tables[int(group)][file.get_tensor(name)] = values
            self._strengths = [table.view(c.moe_experts, c.moe_experts) for table in tables]
        self._strengths = [table.to(device) for table in self._strengths]
        return self._strengths

    def rotations(self, positions):
        c = self.config
        base, stretch, scaling = c.monet_rope_theta, 1.0, c.monet_rope_scaling
        length = int(positions.max()) + 1
        kind = scaling and scaling.get("type", scaling.get("rope_type"))
        if kind == "linear":
            stretch = scaling["factor"]
        elif kind == "dynamic" and length > c.max_position_embeddings:
            ratio = scaling["factor"] * length / c.max_position_embeddings - (scaling["factor"] - 1)
            base *= ratio ** (c.head_dim / (c.head_dim - 2))
        exponents = torch.arange(0, c.head_dim, 2, device=positions.device).float() / c.head_dim
        angles = positions[..., None].float() / stretch / base ** exponents
        angles = torch.cat([angles, angles], -1).unsqueeze(1)
        return angles.cos(), angles.sin()

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids, attention_mask=None, labels=None, **_):
        length, device = input_ids.shape[1], input_ids.device
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        visible = causal.expand(input_ids.shape[0], 1, length, length)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        # Padding sees itself only, so that no row is empty.
        kept = attention_mask.bool()[:, None, None, :] | torch.eye(length, dtype=torch.bool, device=device)
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        rotations, strengths = self.rotations(positions), self.strengths(device)
        x, routing = self.model.embed_tokens(input_ids), None
        for index, layer in enumerate(self.model.layers):
            x, routing = layer(
                x, rotations, visible & kept, routing, strengths[index // self.config.moe_groups])
        logits = self.lm_head(self.model.norm(x))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits)
