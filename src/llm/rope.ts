/** Rotary embeddings of the scalings found in checkpoints. Frequencies are computed in float64 and kept in float32 whatever the weights' dtype is. */
import { core as mx, nn, type MxArray } from "../index.ts";
import type { DecoderConfig, RopeParameters } from "./config.ts";

/** A rotary embedding with its own wavelengths per pair of features, or with a base. */
export class ScaledRoPE extends nn.Module {
  /** Factor on q and k; models fold its square into the attention's scale. */
  readonly attentionFactor: number;
  readonly #dims: number;
  readonly #traditional: boolean;
  readonly #scale: number;
  /** The base for a sequence of this length; constant except for `dynamic`. */
  readonly #base: (length: number) => number | undefined;
  /** The leading underscore keeps the array out of the parameters, so that casting a model leaves it alone. */
  readonly _freqs: MxArray | undefined;

  constructor(
    dims: number,
    options: { traditional: boolean; scale?: number; base?: (length: number) => number; wavelengths?: number[]; attentionFactor?: number; fixed?: boolean },
  ) {
    super();
    this.#dims = dims;
    this.#traditional = options.traditional;
    this.#scale = options.scale ?? 1;
    this.#base = options.base ?? (() => undefined);
    this.#wavelengths = options.wavelengths;
    this._freqs = options.wavelengths && mx.array(Float32Array.from(options.wavelengths));
    this.attentionFactor = options.attentionFactor ?? 1;
    this.fixed = options.fixed ?? true;
  }
  /** For ops that rotate themselves; needs `fixed`. */
  get rotation(): { dims: number; traditional: boolean; scale: number; base?: number; wavelengths?: readonly number[] } {
    const base = this.#wavelengths ? undefined : this.#base(1);
    return { dims: this.#dims, traditional: this.#traditional, scale: this.#scale, ...(base === undefined ? {} : { base }), ...(this.#wavelengths ? { wavelengths: this.#wavelengths } : {}) };
  }
  readonly #wavelengths: readonly number[] | undefined;
  /** True when the rotation depends on the position alone, so that the position may lie in an array. */
  readonly fixed: boolean;
  /** x (B, H, T, D), whose first row stands at position `offset`. */
  override forward(x: MxArray, offset: number | MxArray): MxArray {
    const base = this._freqs ? undefined : this.#base(typeof offset === "number" ? offset + (x.shape.at(-2) as number) : 1);
    return mx.fast.rope(x, this.#dims, this.#traditional, base, this.#scale, offset, this._freqs);
  }
}

/** base^(2i/dims) for each pair of features. */
const plainWavelengths = (dims: number, base: number): number[] => Array.from({ length: dims / 2 }, (_, i) => base ** ((2 * i) / dims));

function required(p: RopeParameters, key: keyof RopeParameters & string): number {
  const value = p[key];
  if (typeof value !== "number") throw new Error(`[load] rope scaling ${JSON.stringify(typeOf(p))} needs the number ${JSON.stringify(key)}`);
  return value;
}
const typeOf = (p: RopeParameters): string => p.rope_type ?? p.type ?? "default";

/** Wavelengths of Llama 3.1: long ones are stretched by `factor`, short ones stay, those between are blended. */
function llama3Wavelengths(dims: number, base: number, p: RopeParameters): number[] {
  const factor = required(p, "factor");
  const low = required(p, "low_freq_factor");
  const high = required(p, "high_freq_factor");
  const original = required(p, "original_max_position_embeddings");
  return plainWavelengths(dims, base).map((w) => {
    const turns = original / (2 * Math.PI * w);
    if (turns < low) return w * factor;
    if (turns > high) return w;
    const smooth = (turns - low) / (high - low);
    return w / ((1 - smooth) / factor + smooth);
  });
}

/** YaRN (Peng et al. 2023): interpolates features that turn less than `beta_slow` times, keeps those over `beta_fast`, ramps between. */
function yarnWavelengths(dims: number, base: number, p: RopeParameters, original: number): number[] {
  const factor = required(p, "factor");
  const featureAt = (turns: number): number => (dims * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const low = Math.max(Math.floor(featureAt(p.beta_fast ?? 32)), 0);
  const high = Math.min(Math.ceil(featureAt(p.beta_slow ?? 1)), dims - 1);
  const width = low === high ? 0.001 : high - low;
  return plainWavelengths(dims, base).map((w, i) => {
    const keep = 1 - Math.min(Math.max((i - low) / width, 0), 1);
    return 1 / ((1 - keep) / (w * factor) + keep / w);
  });
}
const yarnScale = (factor: number, mscale: number): number => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1);

function yarnAttentionFactor(p: RopeParameters): number {
  if (typeof p.attention_factor === "number") return p.attention_factor;
  const factor = required(p, "factor");
  if (p.mscale !== undefined && p.mscale_all_dim !== undefined && p.mscale_all_dim !== 0) {
    return yarnScale(factor, p.mscale) / yarnScale(factor, p.mscale_all_dim);
  }
  return yarnScale(factor, p.mscale ?? 1);
}

/** LongRoPE (Ding et al. 2024): a factor per wavelength; as in mlx-lm, always those for long texts. */
function longrope(dims: number, base: number, traditional: boolean, p: RopeParameters, config: DecoderConfig, original: number): ScaledRoPE {
  const long = p.long_factor ?? 1;
  if (Array.isArray(long) && long.length !== dims / 2) throw new Error(`[load] rope scaling "longrope": long_factor must have ${dims / 2} numbers, got ${long.length}`);
  const factor = p.factor ?? (config.max_position_embeddings ?? original) / original;
  const attentionFactor = typeof p.attention_factor === "number" ? p.attention_factor : factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  const wavelengths = plainWavelengths(dims, base).map((w, i) => w * (Array.isArray(long) ? (long[i] as number) : long));
  return new ScaledRoPE(dims, { traditional, wavelengths, attentionFactor });
}

const parametersOf = (config: DecoderConfig): RopeParameters => config.rope_parameters ?? config.rope_scaling ?? {};

/** Rotary embedding that a config asks for, over `dims` features. */
export function makeRope(config: DecoderConfig, dims: number): ScaledRoPE {
  const p = parametersOf(config);
  const base = config.rope_theta ?? p.rope_theta ?? 10000;
  const traditional = config.rope_traditional;
  const original = p.original_max_position_embeddings ?? config.max_position_embeddings ?? 4096;
  switch (typeOf(p)) {
    case "default":
      return new ScaledRoPE(dims, { traditional, base: () => base });
    case "linear":
      return new ScaledRoPE(dims, { traditional, base: () => base, scale: 1 / required(p, "factor") });
    case "dynamic": {
      const factor = required(p, "factor");
      const limit = config.max_position_embeddings ?? original;
      const stretched = (length: number): number => base * ((factor * length) / limit - (factor - 1)) ** (dims / (dims - 2));
      return new ScaledRoPE(dims, { traditional, base: (length) => (length > limit ? stretched(length) : base), fixed: false });
    }
    case "llama3":
      return new ScaledRoPE(dims, { traditional, wavelengths: llama3Wavelengths(dims, base, p) });
    case "yarn":
      return new ScaledRoPE(dims, { traditional, wavelengths: yarnWavelengths(dims, base, p, original), attentionFactor: yarnAttentionFactor(p) });
    case "longrope":
    case "su":
      return longrope(dims, base, traditional, p, config, original);
    default:
      throw new Error(`[load] rope scaling ${JSON.stringify(typeOf(p))} is not supported; supported: default, linear, dynamic, llama3, yarn, longrope, su`);
  }
}

/** Number of positions the model can tell apart, with its rope scaling; infinite when the config does not say. */
export function contextLength(config: DecoderConfig): number {
  const p = parametersOf(config);
  const positions = config.max_position_embeddings ?? Number.POSITIVE_INFINITY;
  const factor = p.factor ?? 1;
  const type = typeOf(p);
  if (type === "default") return positions;
  if (type === "linear" || type === "dynamic") return positions * factor;
  return Math.max(positions, (p.original_max_position_embeddings ?? 0) * factor);
}
