/** Checkpoints: a folder per saved step with the weights, the optimizer's state, and what is needed to go on. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { core as mx, utils, type MxArray } from "mlx-vk";
import type { ModelConfig } from "./model.ts";
import type { State, TrainingConfig } from "./train.ts";

/** What a checkpoint says beside its arrays. */
export interface Run {
  /** Steps done. */
  step: number;
  model: ModelConfig;
  training: TrainingConfig;
  characters: readonly string[];
  /** SHA-256 of the text file. */
  textHash: string;
}
const files = { run: "run.json", weights: "model.safetensors", optimizer: "optimizer.safetensors" } as const;

export const hashOf = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

const stepFolder = (out: string, step: number): string => join(out, `step-${String(step).padStart(6, "0")}`);
const named = (tree: unknown): Record<string, MxArray> => Object.fromEntries(utils.treeFlatten(tree, "", undefined, utils.toSnakeCase));
// biome-ignore lint/suspicious/noExplicitAny: trees of arrays
const treeOf = (arrays: Record<string, MxArray>): any => utils.treeUnflatten(Object.entries(arrays).map(([name, a]) => [utils.toCamelCase(name), a]));

/** Writes a checkpoint and returns its folder. It appears under its name only when it is complete. */
export function saveCheckpoint(out: string, run: Run, state: State): string {
  const folder = stepFolder(out, run.step);
  const unfinished = `${folder}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  mx.saveSafetensors(join(unfinished, files.weights), named(state.parameters));
  mx.saveSafetensors(join(unfinished, files.optimizer), named(state.optimizer));
  writeFileSync(join(unfinished, files.run), `${JSON.stringify(run, null, 1)}\n`);
  rmSync(folder, { recursive: true, force: true });
  renameSync(unfinished, folder);
  return folder;
}

/** The checkpoint in a folder, or the newest one of a run's folder. */
export function loadCheckpoint(path: string): { run: Run; state: State } {
  const folder = checkpointFolder(path);
  const lacking = Object.values(files).filter((name) => !existsSync(join(folder, name)));
  if (lacking.length > 0) throw new Error(`${folder} is no complete checkpoint: it lacks ${lacking.join(", ")}`);
  const read = (name: string) => mx.load(join(folder, name)) as Record<string, MxArray>;
  return { run: readRun(join(folder, files.run)), state: { parameters: treeOf(read(files.weights)), optimizer: treeOf(read(files.optimizer)) } };
}

function checkpointFolder(path: string): string {
  if (!existsSync(path)) throw new Error(`there is no folder ${path} to resume from`);
  if (existsSync(join(path, files.run))) return path;
  const newest = readdirSync(path).filter((name) => /^step-\d+$/.test(name)).sort().at(-1);
  if (newest === undefined) throw new Error(`${path} holds no checkpoint: expected ${files.run} or folders named step-...`);
  return join(path, newest);
}

function readRun(file: string): Run {
  try {
    const run = JSON.parse(readFileSync(file, "utf8")) as Run;
    if (!Number.isInteger(run.step) || !run.model || !run.training || !Array.isArray(run.characters)) throw new Error("it lacks step, model, training or characters");
    return run;
  } catch (error) {
    throw new Error(`can not read ${file}: ${(error as Error).message}`);
  }
}
