/**
 * The same work on every library that a user of Node could take instead, one after another: decode and prefill of a language model with random weights in
 * each one's own format, and ops. Each library has a process of its own, is checked against float64 first, and takes turns with ours.
 * Use: cd bench/peers && npm install; then from the repository:
 *   node --import tsx bench/peers/run.ts [--only llm|ops|NAME] [--quick] [--rounds 7] [--threads 2] [--model qwen3-0.6b] [--software] [--publish]
 * --quick: fewer and shorter rounds, under five minutes in all. --software: Vulkan drivers that compute on the CPU count too.
 * --publish: the result goes to bench/peers/result.json, the chart to bench/peers/chart.svg and the table into README.md; parts are merged.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Machine, header, machine } from "../harness.ts";
import { type ConfigName, configs } from "../models/configs.ts";
import { compareOps, opText } from "../ops/compare.ts";
import { cases } from "../ops/cases.ts";
import { version } from "./installed.ts";
import { type Plan, measure, openOurs, rowText } from "./measure.ts";
import { type LlmPeer, defaultFolder, llmPeers, notRunnable, ours, works } from "./peers.ts";
import { type LlmRow, type PeerResult, type Section, markdown, merge, svg } from "./report.ts";

const { values: options } = parseArgs({
  options: {
    only: { type: "string" }, quick: { type: "boolean", default: false }, rounds: { type: "string" }, threads: { type: "string" }, model: { type: "string", default: "qwen3-0.6b" },
    software: { type: "boolean", default: false }, publish: { type: "boolean", default: false },
  },
});

const quick = options.quick ? { quick: true } : {};

function plan(model: ConfigName, threads: number): Plan {
  const rounds = Number(options.rounds ?? (options.quick ? 3 : 7));
  return { context: { model, threads, folder: defaultFolder(), software: options.software }, rounds, workMs: options.quick ? 4_000 : 20_000, taskMs: options.quick ? 6_000 : 20_000 };
}

async function llmRows(peers: readonly LlmPeer[], p: Plan): Promise<LlmRow[]> {
  const rows: LlmRow[] = [];
  const say = (row: LlmRow): void => console.log(rowText(row));
  for (const device of ["cpu", "gpu"] as const) {
    const some = peers.filter((peer) => peer.device === device);
    if (some.length === 0) continue;
    const mine = await openOurs(ours[device], p.context);
    for (const peer of some) rows.push(...(await measure(peer, mine, p, say)));
    if (typeof mine !== "string") {
      console.log(`ours on the ${device.toUpperCase()}: ${Math.round(mine.peakBytes / 2 ** 20)} MiB at most`);
      await mine.stop();
    }
  }
  if (!options.only || options.only === "llm") {
    for (const n of notRunnable) for (const w of works) rows.push({ device: "cpu", work: w.name, peer: n.name, weights: "", reason: n.reason });
  }
  // Works stay together in the table.
  return works.flatMap((w) => rows.filter((r) => r.work === w.name));
}

async function opSection(m: Machine, threads: number): Promise<PeerResult["ops"]> {
  const rows = await compareOps(cases, { threads, rounds: Number(options.rounds ?? (options.quick ? 3 : 9)), rowMs: options.quick ? 1_200 : 6_000, sampleMs: options.quick ? 15 : 30, say: (r) => console.log(opText(r)) });
  return { machine: m, ...quick, rows };
}

const here = import.meta.dirname;
function publish(now: PeerResult): void {
  const file = join(here, "result.json");
  const result = merge(existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as PeerResult) : undefined, now);
  writeFileSync(file, `${JSON.stringify(result, null, 1)}\n`);
  writeFileSync(join(here, "chart.svg"), svg(result));
  const readme = join(here, "../../README.md");
  const text = readFileSync(readme, "utf8");
  writeFileSync(readme, text.replace(/(<!-- peers:begin -->)[\s\S]*(<!-- peers:end -->)/, (_, begin: string, end: string) => `${begin}\n${markdown(result)}\n${end}`));
  console.log(`${file}, chart.svg and README.md are new`);
}

async function main(): Promise<void> {
  const model = options.model as ConfigName;
  if (!Object.hasOwn(configs, model)) throw new Error(`unknown model ${model}; there are ${Object.keys(configs).join(", ")}`);
  const { only } = options;
  const peers = llmPeers.filter((p) => !only || only === "llm" || p.name.includes(only) || p.package.includes(only));
  if (only && only !== "ops" && peers.length === 0) throw new Error(`no library is called ${only}; there are ${llmPeers.map((p) => p.name).join("; ")}`);
  const threads = Number(options.threads ?? process.env["MLX_THREADS"] ?? machine().cores);
  process.env["MLX_THREADS"] = String(threads);
  const m = machine(threads);
  console.log(header(m));
  console.log([...new Set([...llmPeers, ...notRunnable].map((p) => p.package))].map((p) => `${p} ${version(p) ?? "not installed"}`).join(", "));
  const llm: Section<LlmRow> | undefined = only === "ops" ? undefined : { machine: m, ...quick, rows: await llmRows(peers, plan(model, threads)) };
  const ops = !only || only === "ops" ? await opSection(m, threads) : undefined;
  const result: PeerResult = { model, ...(llm ? { llm } : {}), ...(ops ? { ops } : {}) };
  console.log(`\n${markdown(result)}\n`);
  const folder = join(here, "../results");
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${m.date.replace(/[:.]/g, "-")}-peers.json`);
  writeFileSync(path, `${JSON.stringify(result, null, 1)}\n`);
  writeFileSync(path.replace(/json$/, "svg"), svg(result));
  console.log(path);
  if (options.publish) publish(result);
}

await main();
