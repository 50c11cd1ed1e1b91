/** One new position through a decoder by the fused ops of a step: five per layer, instead of one kernel per op. */
import { core as mx, type nn, type MxArray } from "../index.ts";
import type { KVCache, PromptCache } from "./cache.ts";
import type { Attention, Decoder, MLP, Projection, StepPosition } from "./transformer.ts";

/** Biases of sibling projections, one behind the other; made once, since the weights of a model that decodes do not change. */
const joined = new WeakMap<MxArray, MxArray>();
function joinedBias(layers: readonly Projection[]): MxArray | undefined {
  const [first] = layers;
  if (!first?.bias || layers.some((l) => !l.bias)) return undefined;
  let all = joined.get(first.bias);
  if (!all || all.disposed) {
    all = mx.concatenate(layers.map((l) => l.bias as MxArray));
    mx.eval(all);
    joined.set(first.bias, all);
  }
  return all;
}

function attention(a: Attention, h: MxArray, norm: nn.RMSNorm, cache: KVCache, position: MxArray): MxArray {
  const { heads, kvHeads, headDim, scale } = a.sizes;
  const siblings = [a.qProj, a.kProj, a.vProj];
  const qkv = mx.decode.normProject(h, norm.weight, norm.eps, siblings, joinedBias(siblings));
  const [oldKeys, oldValues] = cache.buffers;
  const capacity = oldKeys.shape[2] as number;
  const { leastSplit } = mx.decode;
  const eps = a.qNorm?.eps ?? a.kNorm?.eps ?? 0;
  const splits = mx.decode.splitsFor(kvHeads, capacity);
  const norms = [a.qNorm?.weight ?? null, a.kNorm?.weight ?? null] as const;
  const params = { heads, kvHeads, headDim, scale, rope: a.rope.rotation, eps, splits, least: leastSplit };
  const [parts, keys, values] = mx.decode.attentionStep(qkv, position, oldKeys, oldValues, norms, params);
  cache.replace(keys, values);
  return mx.decode.combineProjectAdd(parts, position, leastSplit, a.oProj, h, a.oProj.bias);
}

function feedForward(m: MLP, h: MxArray, norm: nn.RMSNorm): MxArray {
  const inner = mx.decode.normGateUp(h, norm.weight, norm.eps, m.gateProj, m.upProj, joinedBias([m.gateProj, m.upProj]));
  return mx.decode.projectAdd(inner, m.downProj, h, m.downProj.bias);
}

/** True when the fused ops have what the model is made of: they multiply with dense matrices and with affine ones, which have biases beside their scales. */
export const canFuse = (model: Decoder, output: Projection | nn.Embedding | nn.QuantizedEmbedding): boolean =>
  [output, model.embedTokens].every(isAffine) &&
  model.layers.every(({ selfAttn: a, mlp: m }) => m.isSilu && [a.qProj, a.kProj, a.vProj, a.oProj, m.gateProj, m.upProj, m.downProj].every(isAffine));
const isAffine = (m: Projection | nn.Embedding | nn.QuantizedEmbedding): boolean => !("scales" in m) || m.biases !== undefined;

/** Logits (1, V) of the position behind those in `cache`, which is extended by it. `ids` (1, 1). The same as the layers' forward, up to the rounding of sums. */
export function fusedStep(model: Decoder, output: Projection | nn.Embedding | nn.QuantizedEmbedding, ids: MxArray, cache: PromptCache, at: StepPosition): MxArray {
  let h = mx.decode.embedRow(mx.reshape(ids, [1]), model.embedTokens);
  for (const [i, layer] of model.layers.entries()) {
    h = attention(layer.selfAttn, h, layer.inputLayernorm, cache[i] as KVCache, at.position);
    h = feedForward(layer.mlp, h, layer.postAttentionLayernorm);
  }
  return mx.decode.normProject(h, model.norm.weight, model.norm.eps, [output]);
}
