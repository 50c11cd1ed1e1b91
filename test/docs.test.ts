/** Tables in the documents that come from the code. `UPDATE_DOCS=1 npx vitest run --config test/vitest.config.ts test/docs.test.ts` writes them. */
import { readFileSync, writeFileSync } from "node:fs";
import { expect, it, test } from "vitest";
import { flags } from "../src/core/env.ts";
import type { GpuGate } from "../src/core/gpu.ts";
import { type Op, ops } from "../src/core/op.ts";
import "../src/mx.ts";

const readme = new URL("../README.md", import.meta.url);
const shaders = new URL("../shaders/README.md", import.meta.url);

/** Compares the text between the markers `<!-- name:begin -->` and `<!-- name:end -->`, or writes it. */
function checkTable(file: URL, name: string, table: string): void {
  const text = readFileSync(file, "utf8");
  const pattern = new RegExp(`(<!-- ${name}:begin -->)[\\s\\S]*(<!-- ${name}:end -->)`);
  expect(text).toMatch(pattern);
  const wanted = text.replace(pattern, (_, begin: string, end: string) => `${begin}\n${table}\n${end}`);
  if (process.env["UPDATE_DOCS"]) writeFileSync(file, wanted);
  else expect(text).toBe(wanted);
}

function flagTable(): string {
  const rows = Object.entries(flags).map(([name, f]) => `| \`${name}\` | ${f.type === "boolean" ? (f.default ? "1" : "0") : f.default === "" ? "" : String(f.default)} | ${f.doc} |`);
  return ["| variable | default | meaning |", "|---|---|---|", ...rows].join("\n");
}

it("README's table of environment variables is that of core/env.ts", () => checkTable(readme, "flags", flagTable()));

/** How an op gets its result on a stream of the GPU. */
type Way = "kernels" | "generated" | "view" | "composite" | "cpu";
function wayOf(op: Op): Way {
  if (op.gpu && op.gpu.length > 0) return "kernels";
  if (op.view) return "view";
  if (op.expr) return "generated";
  return op.composite ? "composite" : "cpu";
}
/** Stand-ins of the function transforms: they are never evaluated. */
const standIns = new Set(["placeholder", "custom", "tracer", "compiled"]);
const all = [...ops.values()].filter((op) => !standIns.has(op.name));
const namesOf = (way: Way): string[] => all.filter((op) => wayOf(op) === way).map((op) => op.name).sort();

/** Features that a gate demands: always, and by the dtype of the first input. */
function featuresOf(gate: GpuGate | undefined): string {
  const byList = new Map<string, string[]>();
  for (const [dtype, list] of Object.entries(gate?.typeNeeds ?? {})) byList.set(list.join(", "), [...(byList.get(list.join(", ")) ?? []), dtype]);
  return [(gate?.needs ?? []).join(", "), ...[...byList].map(([list, dtypes]) => `${dtypes.join(", ")}: ${list}`)].filter((part) => part !== "").join("; ");
}
function kernelTable(): string {
  const rows = namesOf("kernels").flatMap((name) =>
    (ops.get(name)?.gpu ?? []).map((k) => {
      const env = k.gate?.env;
      const switches = env === undefined ? [] : typeof env === "string" ? [env] : env;
      const otherwise = ops.get(name)?.composite ? "definition" : "CPU";
      return `| ${name} | \`${k.name}\` | ${featuresOf(k.gate)} | ${switches.map((s) => `\`${s}\``).join(", ")} | ${otherwise} |`;
    }),
  );
  const list = (way: Way): string => namesOf(way).map((n) => `\`${n}\``).join(" ");
  return [
    "| op | kernel | device features | switch | when no kernel is open |", "|---|---|---|---|---|", ...rows, "",
    `**Generated** (elementwise, fused and compiled at run time): ${list("generated")}`, "",
    `**Views** (no work, or a copy): ${list("view")}`, "",
    `**By their definition** (other ops): ${list("composite")}`, "",
    `**On the CPU** (with a copy to the host and back; an error with \`MLX_STRICT=1\`): ${list("cpu")}`,
  ].join("\n");
}

it("the table of GPU kernels in shaders/README.md is that of the op records", () => checkTable(shaders, "kernels", kernelTable()));

test("every op is in one of the lists, and the ones that the README says run on the CPU do", () => {
  expect((["kernels", "generated", "view", "composite", "cpu"] as const).flatMap(namesOf).sort()).toEqual(all.map((op) => op.name).sort());
  expect(readFileSync(readme, "utf8")).toContain("`mx.fft`, `mx.linalg` and convolutions run on the CPU");
  expect(namesOf("cpu")).toEqual(["cholesky", "convolution", "eig", "eigh", "fft", "lu", "qr", "solve", "svd"]);
});
