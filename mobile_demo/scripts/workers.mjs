// Bundles the two web workers into public/engine/, beside the LiteRT.js runtime that the first of them loads.
import { build } from 'esbuild';
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const home = join(dirname(fileURLToPath(import.meta.url)), '..');
const out = join(home, 'public/engine');
const wasm = join(home, 'node_modules/@litertjs/core/wasm');

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
await build({
  entryPoints: { worker: join(home, 'src/engine/web/worker.ts'), storage: join(home, 'src/platform/opfs.worker.ts') },
  outdir: out,
  bundle: true,
  minify: true,
  format: 'iife',
  target: 'es2022',
  logLevel: 'warning',
});
// without relaxed SIMD, with it, and with threads; the JSPI build is for GPUs and NPUs only
for (const build of ['compat_', '', 'threaded_']) {
  for (const end of ['js', 'wasm']) {
    const file = `litert_wasm_${build}internal.${end}`;
    copyFileSync(join(wasm, file), join(out, file));
  }
}
