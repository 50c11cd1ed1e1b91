/**
 * What there is of MLX's public names (test/fixtures/mlx-names.json): where a name is here, or why it is not; and of functions, from the op records, which ops they are
 * made of, what computes those, whether they have gradients and can be batched, and which dtypes they take.
 */
import { readFileSync } from "node:fs";
import type { ArrayDesc } from "../../src/core/array.ts";
import { MxArray } from "../../src/core/array.ts";
import { type Dtype, dtypes, float32 } from "../../src/core/dtype.ts";
import type { Op } from "../../src/core/op.ts";
import { isMissing } from "../../src/core/rules.ts";
import { core as mx, nn, optimizers, utils } from "../../src/index.ts";
import { type Probe, probes } from "./parity-probes.ts";

const fixture = JSON.parse(readFileSync(new URL("../fixtures/mlx-names.json", import.meta.url), "utf8")) as { version: string; names: Record<string, string[]> };
export const { version, names } = fixture;

/** Where the names of a section are: an object, and how it is written. */
const homes: Readonly<Record<string, readonly [object | undefined, string]>> = {
  "mlx.core": [mx, "mx."], array: [MxArray.prototype, "a."], "array operators": [mx, "mx."], "array.at": [mx.zeros([1]).at(0), "a.at(i)."],
  random: [mx.random, "mx.random."], linalg: [mx.linalg, "mx.linalg."], fft: [mx.fft, "mx.fft."], fast: [mx.fast, "mx.fast."], transforms: [mx, "mx."], export: [mx, "mx."],
  dtypes: [mx, "mx."], constants: [mx, "mx."], "types and printing": [mx, "mx."], "devices and streams": [mx, "mx."], memory: [mx, "mx."], metal: [mx.metal, "mx.metal."], cuda: [mx.cuda, "mx.cuda."], distributed: [undefined, ""],
  "nn layers": [nn, "nn."], "nn functions": [nn, "nn."], "nn.Module": [nn.Module.prototype, "module."], "nn.init": [nn.init, "nn.init."], "nn.losses": [nn.losses, "nn.losses."],
  optimizers: [optimizers, "optimizers."], "optimizers.Optimizer": [optimizers.Optimizer.prototype, "optimizer."], utils: [utils, "utils."],
};

/** Names that are not MLX's in camelCase. */
const renamed: Readonly<Record<string, string>> = {
  var: "variance", bool_: "bool_", block_masked_mm: "blockMaskedMM", gather_mm: "gatherMM", gather_qmm: "gatherQMM", gather_qqmm: "gatherQQMM", segmented_mm: "segmentedMM", save_gguf: "saveGGUF",
};
export const camel = (name: string): string => renamed[name] ?? name.replace(/(?<=[a-z0-9])_([a-z0-9])/g, (_, c: string) => c.toUpperCase());

/** Python's operators, as functions of mx or members of arrays (with a dot). In-place operators are an assignment of the function's result. */
const operators: Readonly<Record<string, string>> = {
  abs: "abs", add: "add", and: "bitwiseAnd", div: "divide", eq: "equal", floordiv: "floorDivide", ge: "greaterEqual", gt: "greater", invert: "bitwiseInvert", le: "lessEqual", lshift: "leftShift", lt: "less", matmul: "matmul",
  mod: "remainder", mul: "multiply", ne: "notEqual", neg: "negative", or: "bitwiseOr", pow: "power", rshift: "rightShift", sub: "subtract", truediv: "divide", xor: "bitwiseXor",
  init: "array", copy: "array", deepcopy: "array", bool: ".item", complex: ".item", float: ".item", int: ".item", getitem: ".index", setitem: ".indexPut_", len: ".length", repr: ".toString",
};
function operatorHere(name: string): string | undefined {
  const plain = name.replaceAll("__", "");
  if (plain === "iter") return "a[Symbol.iterator]";
  const member = operators[plain] ?? (/^[ir]/.test(plain) ? operators[plain.slice(1)] : undefined);
  if (member === undefined) return undefined;
  const [home, key] = member.startsWith(".") ? [MxArray.prototype, member.slice(1)] : [mx, member];
  return key in home ? `${home === mx ? "mx." : "a."}${key}` : undefined;
}

/** How a name is written here; undefined when it is absent. */
export function findHere(section: string, name: string): string | undefined {
  if (section === "array operators") return operatorHere(name);
  const [home, prefix] = homes[section] ?? [undefined, ""];
  const key = camel(name);
  if (home && key in home) return prefix + key;
  // Python has some members on objects that are static, or instances' own, here.
  if (section === "nn.Module" && key in nn.Module) return `nn.Module.${key}`;
  if (section === "optimizers.Optimizer" && key in optimizers.SGD.prototype) return prefix + key;
  return undefined;
}

const oneThread = "an array belongs to the JavaScript thread that made it; `mx.newStream` makes such streams";
const oneProcess = "there is no communication between processes";
/** Why a name is absent, by section. */
const reasons: Readonly<Record<string, Readonly<Record<string, string>> | string>> = {
  "mlx.core": { from_dlpack: "no library of JavaScript exchanges DLPack capsules; `mx.array(typedArray)` and `toTypedArray` are its counterparts" },
  "array operators": {
    __array__: "numpy's protocol", __array_namespace__: "Python's array API protocol", __dlpack__: "no library of JavaScript exchanges DLPack capsules", __dlpack_device__: "no library of JavaScript exchanges DLPack capsules",
    __format__: "JavaScript has no format strings; `toString` and `mx.setPrintoptions`", __getstate__: "Python's pickle; `mx.save`", __setstate__: "Python's pickle; `mx.load`",
  },
  fast: {
    metal_kernel: "kernels in Metal's language; `mx.fast.kernel` takes a formula", cuda_kernel: "kernels in CUDA; `mx.fast.kernel` takes a formula", precompiled_cuda_kernel: "kernels in CUDA; `mx.fast.kernel` takes a formula",
  },
  "types and printing": { PrintOptions: "a plain object `{precision}`; the type is exported" },
  "devices and streams": { ThreadLocalStream: oneThread, new_thread_local_stream: oneThread, new_thread_unsafe_stream: oneThread },
  distributed: oneProcess,
  "nn layers": Object.fromEntries(["AllToShardedLinear", "FullyShardedModule", "QuantizedAllToShardedLinear", "QuantizedShardedToAllLinear", "ShardedToAllLinear"].map((n) => [n, oneProcess])),
  "nn functions": Object.fromEntries(["average_gradients", "clip_grad_norm_sharded", "fully_shard", "shard_inplace", "shard_linear"].map((n) => [n, oneProcess])),
};
export function reasonFor(section: string, name: string): string | undefined {
  const list = reasons[section];
  return typeof list === "string" ? list : list?.[name];
}
/** All reasons that are written down, as [section, name]; a section's common reason has no name. */
export const givenReasons = (): [string, string | undefined][] => Object.entries(reasons).flatMap(([s, list]): [string, string | undefined][] => (typeof list === "string" ? [[s, undefined]] : Object.keys(list).map((n) => [s, n])));

/** The ops between inputs and results. */
function opsBetween(inputs: ReadonlySet<ArrayDesc>, results: readonly MxArray[]): Op[] {
  const found = new Set<Op>();
  const depends = new Map<ArrayDesc, boolean>();
  const visit = (d: ArrayDesc): boolean => {
    const known = depends.get(d);
    if (known !== undefined) return known;
    let any = inputs.has(d);
    if (d.node && !any) {
      for (const x of d.node.inputs) any = visit(x) || any;
      if (any || inputs.size === 0) found.add(d.node.op);
    }
    depends.set(d, any);
    return any;
  };
  for (const r of results) visit(r.desc);
  return [...found];
}
const arraysIn = (x: unknown): MxArray[] => (x instanceof MxArray ? [x] : Array.isArray(x) ? x.flatMap(arraysIn) : []);

type Call = (p: Probe) => unknown;
function callOf(section: string, key: string): Call | undefined {
  const listed = probes[section]?.[key];
  if (listed === "plain") return undefined;
  if (listed) return listed;
  const f = (homes[section]?.[0] as Record<string, (...args: MxArray[]) => unknown>)[key] as (...args: MxArray[]) => unknown;
  return (p) => {
    try {
      return f(p.a(4, 4));
    } catch {
      return f(p.a(4, 4), p.a(4, 4));
    }
  };
}
interface Outcome {
  readonly ops: Op[];
  /** Whether the call took an input, or a dtype. */
  readonly inputs: boolean;
  readonly typed: boolean;
}
/** What one call is made of, or undefined when the dtype is refused. */
function probe(call: Call, d: Dtype): Outcome | undefined {
  const inputs = new Set<ArrayDesc>();
  let typed = false;
  const p: Probe = {
    get d() {
      typed = true;
      return d;
    },
    a(...shape) {
      typed = true;
      const x = mx.ones(shape, d);
      inputs.add(x.desc);
      return x;
    },
  };
  try {
    return mx.tidy(() => ({ ops: opsBetween(inputs, arraysIn(call(p))), inputs: inputs.size > 0, typed }));
  } catch {
    return undefined;
  }
}

const cpuWay = (op: Op): string => (op.kernels.length > 0 ? "kernel" : op.view ? "view" : op.expr ? "generated" : op.composite ? "definition" : "none");
const gpuWay = (op: Op): string => (op.gpu && op.gpu.length > 0 ? "kernel" : op.view ? "view" : op.expr ? "generated" : op.composite ? "definition" : "CPU");
const joined = (list: readonly string[]): string => [...new Set(list)].sort().join(", ");
function ruleText(ops: readonly Op[], kind: "vjp" | "vmap"): string {
  const missing = ops.map((op) => op[kind]).find(isMissing);
  if (missing) return `no: ${missing.none}`;
  return kind === "vjp" && ops.every((op) => op.vjp === "zero") ? "zero" : "yes";
}
const groups: readonly [string, (d: Dtype) => boolean][] = [
  ["bool", (d) => d.name === "bool"], ["unsigned", (d) => d.kind === "unsigned"], ["signed", (d) => d.kind === "signed"], ["float", (d) => d.isFloat && d.name !== "float64"], ["float64", (d) => d.name === "float64"], ["complex64", (d) => d.name === "complex64"],
];
function dtypeText(taken: readonly Dtype[]): string {
  if (taken.length === dtypes.length) return "all";
  return groups.flatMap(([name, of]) => {
    const [all, here] = [dtypes.filter(of), taken.filter(of)];
    return here.length === all.length ? [name] : here.map((d) => d.name);
  }).join(" ");
}

export interface Facts {
  readonly ops: string;
  readonly cpu: string;
  readonly gpu: string;
  readonly gradient: string;
  readonly vmap: string;
  readonly dtypes: string;
}
/** What the op records say of a function. Undefined for one that does not compute with arrays. Throws when the probe does not run. */
export function factsOf(section: string, key: string): Facts | undefined {
  const call = callOf(section, key);
  if (!call) return undefined;
  const tried = dtypes.flatMap((d): [Dtype, Outcome][] => {
    const outcome = probe(call, d);
    return outcome ? [[d, outcome]] : [];
  });
  const [first] = tried;
  if (!first) throw new Error(`the probe of ${section} ${key} runs with no dtype`);
  // For float32, or for the others where there is nothing to do with it.
  const single = tried.find(([d]) => d === float32)?.[1].ops ?? [];
  const sample = single.length > 0 ? single : [...new Set(tried.flatMap(([, o]) => o.ops))];
  const { inputs, typed } = first[1];
  const rules = inputs && sample.length > 0;
  return {
    ops: [...new Set(sample.map((op) => op.name))].sort().join(" "), cpu: joined(sample.map(cpuWay)), gpu: joined(sample.map(gpuWay)), gradient: rules ? ruleText(sample, "vjp") : "", vmap: rules ? ruleText(sample, "vmap") : "",
    dtypes: typed ? dtypeText(tried.map(([d]) => d)) : "",
  };
}

/** Sections whose functions compute with arrays by ops. */
const withOps = new Set(["mlx.core", "random", "linalg", "fft", "fast"]);

function sectionTable(section: string): string {
  const full = withOps.has(section);
  const rows = (names[section] ?? []).map((name) => {
    const here = findHere(section, name);
    if (here === undefined) return `| ${name} | absent: ${reasonFor(section, name) ?? "?"} |${full ? " | | | | | |" : ""}`;
    const facts = full ? factsOf(section, here.split(".").pop() as string) : undefined;
    const cells = full ? [facts?.ops, facts?.cpu, facts?.gpu, facts?.gradient, facts?.vmap, facts?.dtypes].map((c) => ` ${c ?? ""} |`).join("") : "";
    return `| ${name} | \`${here}\` |${cells}`;
  });
  const head = full ? ["| MLX | here | ops | CPU | GPU | gradient | vmap | dtypes |", "|---|---|---|---|---|---|---|---|"] : ["| MLX | here |", "|---|---|"];
  return [`## ${section}`, "", ...head, ...rows, ""].join("\n");
}

export function parityDocument(): string {
  const counts = Object.entries(names).map(([section, list]) => `| ${section} | ${list.length} | ${list.filter((n) => findHere(section, n) !== undefined).length} |`);
  return [
    `# MLX ${version}'s public names`, "",
    "Made by `npm run parity` from the op records; do not edit. `test/parity.test.ts` fails when it is stale, or when a name is neither here nor listed with a reason.", "",
    "Columns: the ops that a small call is made of; what computes them on the CPU and on the GPU (`kernel`: written by hand; `generated`: compiled from the formula at run time; `view`: no work; `definition`: by other ops; `CPU`: there, with a copy); whether gradients flow (`zero`: the result is",
    "constant almost everywhere); whether `vmap` batches it; and the dtypes that the call takes (`float`: float16, bfloat16, float32). Empty cells: it has no such input, or gives its input back.", "",
    "| section | names | here |", "|---|---|---|", ...counts, "", ...Object.keys(names).map(sectionTable),
  ].join("\n");
}
