/** Models from folders and from the hub. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { core as mx, nn, type Dtype, type MxArray } from "../index.ts";
import { checkConfig, eosTokenIds, type DecoderConfig } from "./config.ts";
import { type DownloadOptions, type DownloadProgress, isRepoName, snapshotDownload } from "./hub.ts";
import { architectureOf } from "./models/index.ts";
import { loadTokenizer, readJson, type Tokenizer } from "./tokenizer.ts";
import type { CausalLM } from "./transformer.ts";

export interface LoadProgress {
  stage: "load";
  file: string;
  /** Bytes of the weight files so far, and of all of them. */
  loaded: number;
  total: number;
}

export interface LoadOptions extends Omit<DownloadOptions, "progress"> {
  /** Casts floating weights (also scales and biases of quantized ones). Default: as stored. */
  dtype?: Dtype | string;
  /** Leave casts to the first use instead of doing them now. Default false. */
  lazy?: boolean;
  progress?: (progress: DownloadProgress | LoadProgress) => void;
}

export interface LoadedModel {
  model: CausalLM;
  /** Undefined when the folder has no tokenizer files. */
  tokenizer: Tokenizer | undefined;
  config: DecoderConfig;
}

const floatingTypes = ["float16", "bfloat16", "float32"] as const;

function floatingType(dtype: Dtype | string): Dtype {
  const name = String(dtype);
  const known = floatingTypes.find((n) => n === name);
  if (!known) throw new Error(`[load] dtype must be one of ${floatingTypes.join(", ")}, got ${JSON.stringify(name)}`);
  return mx[known];
}

/** Folder of a model: a path that exists, else a repository of the hub. */
async function modelFolder(pathOrRepo: string, options: LoadOptions): Promise<string> {
  const path = pathOrRepo.startsWith("~/") ? join(homedir(), pathOrRepo.slice(2)) : pathOrRepo;
  if (existsSync(path)) {
    if (!statSync(path).isDirectory()) throw new Error(`[load] ${pathOrRepo} is a file; give the folder that holds config.json and the weights`);
    return resolve(path);
  }
  if (!isRepoName(pathOrRepo)) throw new Error(`[load] there is no folder ${pathOrRepo}`);
  return snapshotDownload(pathOrRepo, options as DownloadOptions);
}

/** Weight files: those the index names, else all `model*.safetensors`. Throws when one is missing. */
function weightFiles(folder: string): string[] {
  const index = join(folder, "model.safetensors.index.json");
  if (existsSync(index)) {
    const map = readJson<{ weight_map?: Record<string, string> }>(index).weight_map;
    if (typeof map !== "object" || map === null) throw new Error(`[load] ${index} lacks the key "weight_map"`);
    const names = [...new Set(Object.values(map))].sort();
    const missing = names.filter((name) => !existsSync(join(folder, name)));
    if (missing.length > 0) throw new Error(`[load] ${folder} lacks ${missing.join(", ")}, which model.safetensors.index.json names`);
    return names;
  }
  const names = readdirSync(folder)
    .filter((name) => /^(model|weights).*\.safetensors$/.test(name))
    .sort();
  if (names.length === 0) throw new Error(`[load] ${folder} has no weights (model*.safetensors)`);
  return names;
}

/** Casts what is floating. Done at once, the old array goes before the next is cast, so memory holds only one of them twice. */
function cast(a: MxArray, dtype: Dtype, lazy: boolean): MxArray {
  if (a.dtype === dtype || !mx.issubdtype(a.dtype, mx.floating)) return a;
  const b = a.astype(dtype);
  if (!lazy) mx.eval(b);
  a.dispose();
  return b;
}

function readWeights(folder: string, dtype: Dtype | undefined, options: LoadOptions): Record<string, MxArray> {
  const files = weightFiles(folder).map((name) => ({ name, size: statSync(join(folder, name)).size }));
  const total = files.reduce((sum, f) => sum + f.size, 0);
  const weights: Record<string, MxArray> = {};
  let loaded = 0;
  for (const { name, size } of files) {
    const part = mx.load(join(folder, name)) as Record<string, MxArray>;
    for (const [key, value] of Object.entries(part)) weights[key] = dtype ? cast(value, dtype, options.lazy ?? false) : value;
    loaded += size;
    options.progress?.({ stage: "load", file: name, loaded, total });
  }
  return weights;
}

/** Makes those layers quantized that the config and the weights say are. */
function quantizeLayers(model: CausalLM, config: DecoderConfig, weights: Readonly<Record<string, MxArray>>): void {
  const q = config.quantization;
  if (!q) return;
  try {
    const all = { groupSize: q.group_size, bits: q.bits, mode: q.mode };
    // Computes nothing, but checks the arguments also where no layer uses them.
    mx.quantize(mx.zeros([2, 128]), all.groupSize, all.bits, all.mode);
    const choose = (path: string, module: nn.Module): boolean | nn.QuantizationOptions => {
      if (!("toQuantized" in module) || !(`${path}.scales` in weights)) return false;
      const own = q[path];
      if (typeof own !== "object" || own === null) return own === false ? false : all;
      // What a layer's entry leaves out is the mode's default when it names a mode of its own, else what all layers have.
      const { group_size, bits, mode = q.mode } = own as { group_size?: number; bits?: number; mode?: string };
      const rest = mode === q.mode ? all : {};
      return { ...rest, ...(group_size === undefined ? {} : { groupSize: group_size }), ...(bits === undefined ? {} : { bits }), mode };
    };
    nn.quantize(model, q.group_size, q.bits, choose, q.mode);
  } catch (error) {
    throw new Error(`[load] the quantization of config.json is not supported: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Loads a model.
 * @param pathOrRepo a folder with config.json, safetensors and (if it has one) a tokenizer, as Hugging Face and MLX lay them out; or the
 *   name of a repository, which is downloaded. A folder that exists wins.
 */
export async function load(pathOrRepo: string, options: LoadOptions = {}): Promise<LoadedModel> {
  const dtype = options.dtype === undefined ? undefined : floatingType(options.dtype);
  const folder = await modelFolder(pathOrRepo, options);
  const { config, eos, architecture } = readConfig(folder);
  const tokenizer = await loadTokenizer(folder, eos);
  const weights = readWeights(folder, dtype, options);
  const model = architecture.create(config, eos);
  const own = model.sanitize(weights);
  for (const [name, value] of Object.entries(weights)) if (!(name in own)) value.dispose();
  quantizeLayers(model, config, own);
  try {
    model.loadWeights(Object.entries(own));
  } catch (error) {
    throw new Error(`[load] the weights in ${folder} do not fit config.json: ${(error as Error).message}`, { cause: error });
  }
  model.eval();
  if (!options.lazy) mx.eval(model.parameters());
  return { model, tokenizer, config };
}

function readConfig(folder: string) {
  const file = join(folder, "config.json");
  if (!existsSync(file)) throw new Error(`[load] ${folder} has no config.json`);
  const json = readJson<Record<string, unknown>>(file);
  const architecture = architectureOf(json.model_type, file);
  const config = checkConfig(architecture.schema, json, file);
  const generationFile = join(folder, "generation_config.json");
  const eos = eosTokenIds(config, existsSync(generationFile) ? readJson(generationFile) : undefined);
  return { config, eos, architecture };
}
