/** Downloads checkpoints from the Hugging Face hub into the cache that its other tools use: blobs, and snapshots that link to them. */
import { createWriteStream, existsSync, readFileSync } from "node:fs";
import { mkdir, rename, rm, symlink, writeFile, copyFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, relative } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";

export interface DownloadProgress {
  stage: "download";
  file: string;
  /** Bytes of all files so far, and of all files. */
  loaded: number;
  total: number;
}

export interface DownloadOptions {
  /** Branch, tag or commit. Default "main". */
  revision?: string;
  /** Files to download, as globs. Default: what a language model needs. */
  allowPatterns?: readonly string[];
  /** Default: HF_HUB_CACHE, else `hub` in HF_HOME, else ~/.cache/huggingface/hub. */
  cacheDir?: string;
  /** Default: HF_TOKEN, if set. */
  accessToken?: string;
  /** Default: HF_ENDPOINT, else https://huggingface.co. */
  endpoint?: string;
  progress?: (progress: DownloadProgress) => void;
}

const modelFiles = ["*.json", "model*.safetensors", "*.jinja", "*.txt"];

/** The hub's cache folder. */
export function hubCacheDir(env: NodeJS.ProcessEnv = process.env): string {
  const home = env.HF_HOME ?? join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "huggingface");
  return env.HF_HUB_CACHE ?? env.HUGGINGFACE_HUB_CACHE ?? join(home, "hub");
}

/** True for names such as "Qwen/Qwen3-0.6B". */
export const isRepoName = (name: string): boolean => /^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(name);

/** Folder of a revision that was downloaded before, if its download was finished. */
function cachedSnapshot(storage: string, revision: string): string | undefined {
  const ref = join(storage, "refs", revision);
  const commit = existsSync(ref) ? readFileSync(ref, "utf8").trim() : revision;
  const folder = join(storage, "snapshots", commit);
  return existsSync(join(folder, "config.json")) ? folder : undefined;
}

/**
 * Brings the files of a repository onto this machine and gives the folder they are in. Files already there are not loaded again; without a
 * network (or with HF_HUB_OFFLINE=1) an earlier download is used.
 */
export async function snapshotDownload(repo: string, options: DownloadOptions = {}): Promise<string> {
  if (!isRepoName(repo)) throw new Error(`[load] ${JSON.stringify(repo)} is neither a folder nor the name of a repository (owner/name)`);
  const { revision = "main", cacheDir = hubCacheDir() } = options;
  const storage = join(cacheDir, `models--${repo.replace("/", "--")}`);
  const cached = cachedSnapshot(storage, revision);
  if (/^(1|on|yes|true)$/i.test(process.env.HF_HUB_OFFLINE ?? "")) {
    if (cached) return cached;
    throw new Error(`[load] ${repo} is not in ${cacheDir}, and HF_HUB_OFFLINE forbids to download it`);
  }
  try {
    return await downloadSnapshot(repo, storage, revision, options);
  } catch (error) {
    if (cached && isNetworkError(error)) return cached;
    throw new Error(`[load] can not download ${repo} (revision ${revision}): ${reasonOf(error)}`, { cause: error });
  }
}

const isNetworkError = (error: unknown): boolean => error instanceof TypeError && error.message.includes("fetch");
function reasonOf(error: unknown): string {
  const { message, cause, statusCode } = error as { message?: string; cause?: { message?: string; code?: string }; statusCode?: number };
  if (statusCode === 401 || statusCode === 404) return "there is no such repository or revision, or it needs a token (HF_TOKEN)";
  return [message, cause?.message || cause?.code].filter(Boolean).join(": ");
}

interface RemoteFile {
  path: string;
  size: number;
  /** Names the content: the file's name among the blobs. */
  etag: string;
}

async function downloadSnapshot(repo: string, storage: string, revision: string, options: DownloadOptions): Promise<string> {
  const hub = await import("@huggingface/hub");
  const { default: picomatch } = await import("picomatch");
  const accessToken = options.accessToken ?? process.env.HF_TOKEN;
  const endpoint = options.endpoint ?? process.env.HF_ENDPOINT;
  const common = { repo, ...(endpoint ? { hubUrl: endpoint.replace(/\/$/, "") } : {}), ...(accessToken ? { accessToken } : {}) };
  const { sha } = await hub.modelInfo({ ...common, name: repo, revision, additionalFields: ["sha"] });
  const wanted = picomatch([...(options.allowPatterns ?? modelFiles)]);
  const files: RemoteFile[] = [];
  for await (const entry of hub.listFiles({ ...common, revision: sha, recursive: true })) {
    if (entry.type !== "file" || !wanted(entry.path)) continue;
    requireInside(entry.path);
    const etag = entry.lfs?.oid ?? entry.xetHash ?? entry.oid;
    if (!etag || !/^[\w-]+$/.test(etag)) throw new Error(`the hub names no content for ${entry.path}`);
    files.push({ path: entry.path, size: entry.size, etag });
  }
  const folder = join(storage, "snapshots", sha);
  const total = files.reduce((sum, f) => sum + f.size, 0);
  let loaded = 0;
  const counted = (file: string) => (bytes: number) => {
    loaded += bytes;
    options.progress?.({ stage: "download", file, loaded, total });
  };
  for (const file of files) {
    const blob = join(storage, "blobs", file.etag);
    const link = join(folder, file.path);
    const count = counted(file.path);
    if (existsSync(link)) {
      count(file.size);
      continue;
    }
    if (existsSync(blob)) count(file.size);
    else await downloadBlob(() => hub.downloadFile({ ...common, path: file.path, revision: sha }), file, blob, count);
    await linkTo(blob, link);
  }
  if (revision !== sha) {
    await mkdir(dirname(join(storage, "refs", revision)), { recursive: true });
    await writeFile(join(storage, "refs", revision), sha);
  }
  return folder;
}

/** A path from the repository must stay inside the snapshot. */
function requireInside(path: string): void {
  if (isAbsolute(path) || path.includes("\\") || path.includes("\0") || path.split("/").includes("..")) {
    throw new Error(`the repository has a file with the name ${JSON.stringify(path)}, which leads out of the cache`);
  }
}

/** Loads one file beside its place and moves it there when it is complete. */
async function downloadBlob(open: () => Promise<Blob | null>, file: RemoteFile, blob: string, count: (bytes: number) => void): Promise<void> {
  await mkdir(dirname(blob), { recursive: true });
  const incomplete = `${blob}.${process.pid}.incomplete`;
  const counter = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      count(chunk.length);
      done(null, chunk);
    },
  });
  try {
    if (file.size === 0) await writeFile(incomplete, "");
    else {
      const content = await open();
      if (!content) throw new Error(`${file.path} is not in the repository`);
      await pipeline(Readable.fromWeb(content.stream() as ReadableStream), counter, createWriteStream(incomplete));
    }
    const { size } = await stat(incomplete);
    if (size !== file.size) throw new Error(`${file.path} has ${file.size} bytes, but ${size} arrived`);
    await rename(incomplete, blob);
  } finally {
    await rm(incomplete, { force: true });
  }
}

/** Symbolic link, or a copy where links are not allowed. */
async function linkTo(blob: string, link: string): Promise<void> {
  await mkdir(dirname(link), { recursive: true });
  try {
    await symlink(relative(dirname(link), blob), link);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
    await copyFile(blob, link);
  }
}
