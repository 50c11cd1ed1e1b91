/** Downloads, against a server on this machine that answers as the hub does. */
import { createHash } from "node:crypto";
import { existsSync, lstatSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hubCacheDir, isRepoName, snapshotDownload } from "../src/llm/hub.ts";

const sha = "0123456789abcdef0123456789abcdef01234567";
const contents: Record<string, Buffer> = {
  "config.json": Buffer.from('{"model_type": "llama"}'),
  "model.safetensors": Buffer.from(Array.from({ length: 200_000 }, (_, i) => i % 251)),
  "README.md": Buffer.from("not needed"),
  "onnx/model.bin": Buffer.from("not needed either"),
};
let listing = contents;
let truncated = false;
let requests: string[] = [];
let server: Server;
let endpoint = "";
let cacheDir = "";
let wasEndpoint: string | undefined;

const oid = (data: Buffer): string => createHash("sha1").update(data).digest("hex");

beforeAll(async () => {
  server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", endpoint);
    requests.push(url.pathname);
    const json = (value: unknown): void => void response.setHeader("content-type", "application/json").end(JSON.stringify(value));
    if (url.pathname.startsWith("/api/models/owner/name/revision/"))
      return json({ _id: "1", id: "owner/name", sha, private: false, downloads: 0, likes: 0, lastModified: "2026-01-01T00:00:00Z" });
    if (url.pathname.startsWith("/api/models/owner/name/tree/")) {
      return json(Object.entries(listing).map(([path, data]) => ({ type: "file", path, size: data.length, oid: oid(data) })));
    }
    const data = contents[url.pathname.replace(`/owner/name/resolve/${sha}/`, "")];
    if (!data) return void response.writeHead(404).end();
    const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "");
    const body = range ? data.subarray(Number(range[1]), Number(range[2]) + 1) : truncated ? data.subarray(0, 100) : data;
    if (range) response.setHeader("content-range", `bytes ${range[1]}-${range[2]}/${data.length}`);
    response.writeHead(range ? 206 : 200, { etag: `"${oid(data)}"`, "content-length": body.length });
    response.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  wasEndpoint = process.env.HF_HUB_OFFLINE;
  delete process.env.HF_HUB_OFFLINE;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  if (wasEndpoint !== undefined) process.env.HF_HUB_OFFLINE = wasEndpoint;
});
beforeEach(() => {
  if (cacheDir) rmSync(cacheDir, { recursive: true, force: true });
  cacheDir = mkdtempSync(join(tmpdir(), "mlx-hub-"));
  requests = [];
  listing = contents;
  truncated = false;
});
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

describe("snapshotDownload", () => {
  test("brings what a model needs, in the hub's own layout, and reports progress", async () => {
    const progress: [number, number][] = [];
    const folder = await snapshotDownload("owner/name", { endpoint, cacheDir, progress: (p) => progress.push([p.loaded, p.total]) });
    expect(folder).toBe(join(cacheDir, "models--owner--name", "snapshots", sha));
    expect(readdirSync(folder).sort()).toEqual(["config.json", "model.safetensors"]);
    expect(lstatSync(join(folder, "model.safetensors")).isSymbolicLink()).toBe(true);
    expect(readFileSync(join(folder, "model.safetensors")).equals(contents["model.safetensors"] as Buffer)).toBe(true);
    expect(readFileSync(join(cacheDir, "models--owner--name", "refs", "main"), "utf8")).toBe(sha);
    const total = (contents["config.json"] as Buffer).length + 200_000;
    expect(progress.at(-1)).toEqual([total, total]);
  });
  test("does not load files again", async () => {
    await snapshotDownload("owner/name", { endpoint, cacheDir });
    requests = [];
    await snapshotDownload("owner/name", { endpoint, cacheDir });
    expect(requests.filter((r) => r.includes("/resolve/"))).toEqual([]);
  });
  test("without a network an earlier download is used", async () => {
    const folder = await snapshotDownload("owner/name", { endpoint, cacheDir });
    expect(await snapshotDownload("owner/name", { endpoint: "http://127.0.0.1:9", cacheDir })).toBe(folder);
  });
  test("without a network and without an earlier download the error names the repository", async () => {
    await expect(snapshotDownload("owner/name", { endpoint: "http://127.0.0.1:9", cacheDir })).rejects.toThrow(/can not download owner\/name/);
  });
  test("offline mode never asks the hub", async () => {
    process.env.HF_HUB_OFFLINE = "1";
    try {
      await expect(snapshotDownload("owner/name", { endpoint, cacheDir })).rejects.toThrow(/HF_HUB_OFFLINE/);
      expect(requests).toEqual([]);
    } finally {
      delete process.env.HF_HUB_OFFLINE;
    }
  });
  test("a file that arrives incomplete is an error and leaves nothing behind", async () => {
    truncated = true;
    await expect(snapshotDownload("owner/name", { endpoint, cacheDir })).rejects.toThrow(/can not download owner\/name/);
    const blobs = join(cacheDir, "models--owner--name", "blobs");
    expect(existsSync(blobs) ? readdirSync(blobs).filter((f) => f.includes("incomplete")) : []).toEqual([]);
    expect(existsSync(join(cacheDir, "models--owner--name", "snapshots", sha, "model.safetensors"))).toBe(false);
  });
  test("a file name that leads out of the cache is refused", async () => {
    listing = { "../config.json": Buffer.from("{}") };
    await expect(snapshotDownload("owner/name", { endpoint, cacheDir, allowPatterns: ["**", "../*"] })).rejects.toThrow(/leads out of the cache/);
  });
  test("a repository that is not there", async () => {
    await expect(snapshotDownload("owner/other", { endpoint, cacheDir })).rejects.toThrow(/no such repository/);
  });
});

test("the cache folder follows the hub's variables", () => {
  expect(hubCacheDir({ HF_HUB_CACHE: "/a", HF_HOME: "/b" })).toBe("/a");
  expect(hubCacheDir({ HF_HOME: "/b" })).toBe("/b/hub");
  expect(hubCacheDir({ XDG_CACHE_HOME: "/c" })).toBe("/c/huggingface/hub");
});
test("names of repositories", () => {
  expect(["Qwen/Qwen3-0.6B", "mlx-community/Qwen3-0.6B-4bit"].every(isRepoName)).toBe(true);
  expect(["model", "./model", "a/b/c", "../x", "/x/y", ""].some(isRepoName)).toBe(false);
});
