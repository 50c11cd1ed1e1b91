/** Our own library as one of the engines. Argument: folder of a checkpoint. The threads come from MLX_THREADS. */
import { openModel } from "../models/decode.ts";
import { serve } from "./engine.ts";

const [path] = process.argv.slice(2);
await serve(() => openModel(path as string));
