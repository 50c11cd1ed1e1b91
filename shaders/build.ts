/**
 * Compiles the shaders whose sources have changed: `node --import tsx shaders/build.ts [family ...]`; `--check` only says which are stale. The compiled
 * files are checked in, named by a hash of their sources, so that no user needs a compiler. Needs glslang 15 or newer (GLSLANG names it; for cooperative
 * matrices 16.6 with bfloat16) and, when there is one, spirv-opt (SPIRV_OPT).
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Variant } from "./variant.ts";
import { variants } from "./variants.ts";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "spv");

/** A source with the text of its includes in place (relative to shaders/common or to itself). */
function expand(file: string, seen: Set<string> = new Set()): string {
  if (seen.has(file)) return "";
  seen.add(file);
  return readFileSync(file, "utf8").replace(/^#include "([^"]+)".*$/gm, (_, name: string) => {
    const near = join(dirname(file), name);
    const path = name.startsWith("common/") ? join(here, name) : near;
    return expand(path, seen);
  });
}
function sourceOf(v: Variant & { family: string }): string {
  const defines = Object.entries(v.defines ?? {}).map(([k, x]) => `#define ${k} ${x}`);
  const text = expand(join(here, v.family, v.source));
  const first = text.indexOf("\n") + 1;
  if (!text.startsWith("#version")) throw new Error(`${v.source} must begin with #version`);
  return `${text.slice(0, first)}${defines.join("\n")}\n${text.slice(first)}`;
}
/** Changes when the way of compiling does. */
const recipe = "vulkan1.3 -g0 -O 1";
const hashOf = (source: string): string => createHash("sha256").update(recipe).update(source).digest("hex").slice(0, 12);

/** Names of variants whose compiled file is missing, and compiled files that belong to no variant. */
export function staleShaders(): { missing: string[]; extra: string[] } {
  const present = new Set(readdirSync(out).filter((f) => f.endsWith(".spv")));
  const missing: string[] = [];
  for (const [name, v] of variants) if (!present.delete(`${name.replaceAll("/", ".")}.${hashOf(sourceOf(v))}.spv`)) missing.push(name);
  return { missing, extra: [...present] };
}

/** Marks the function that takes 7 numbers (common/epilogue.glsl), so that the optimizer leaves it a function. */
function keepEpilogue(file: Buffer): Buffer {
  const words = new Uint32Array(file.buffer.slice(file.byteOffset, file.byteOffset + file.length));
  const [typeFunction, functionBegin, dontInline] = [33, 54, 2];
  let type: number | undefined;
  for (let at = 5; at < words.length; at += (words[at] as number) >>> 16) {
    const [op, length] = [(words[at] as number) & 0xffff, (words[at] as number) >>> 16];
    if (op === typeFunction && length === 3 + 7) type = words[at + 1];
    if (op === functionBegin && words[at + 4] === type) words[at + 3] = dontInline;
  }
  return Buffer.from(words.buffer);
}

function compile(name: string, v: Variant & { family: string }): void {
  const source = sourceOf(v);
  const stem = name.replaceAll("/", ".");
  const target = join(out, `${stem}.${hashOf(source)}.spv`);
  const temporary = `${target}.${process.pid}.tmp`;
  const compiler = process.env["GLSLANG"] ?? "glslangValidator";
  const run = spawnSync(compiler, ["--stdin", "-S", "comp", "-V", "--target-env", "vulkan1.3", "-g0", "-o", temporary], { input: source, encoding: "utf8" });
  if (run.status !== 0) throw new Error(`${name}: ${run.stdout}${run.stderr}${run.error?.message ?? ""}`);
  if (v.defines?.["EPILOGUE"]) writeFileSync(temporary, keepEpilogue(readFileSync(temporary)));
  const optimizer = process.env["SPIRV_OPT"];
  if (optimizer) execFileSync(optimizer, ["-O", "--target-env=vulkan1.3", temporary, "-o", temporary]);
  renameSync(temporary, target);
}

function main(args: readonly string[]): void {
  const families = args.filter((a) => !a.startsWith("--"));
  const mine = (name: string): boolean => families.length === 0 || families.includes(name.split(/[/.]/)[0] as string);
  const { missing, extra } = staleShaders();
  if (args.includes("--check")) {
    for (const m of missing) console.error(`stale: ${m}`);
    for (const e of extra) console.error(`belongs to no variant: ${e}`);
    if (missing.length + extra.length > 0) process.exitCode = 1;
    return;
  }
  for (const f of extra.filter(mine)) rmSync(join(out, f));
  for (const name of missing.filter(mine)) compile(name, variants.get(name) as Variant & { family: string });
  writeFileSync(join(out, ".gitattributes"), "*.spv binary\n");
  console.log(`${missing.filter(mine).length} shaders compiled, ${variants.size} in all`);
}
if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.slice(2));
