/** The code of docs/app/web.md, bundled as it stands there and run in the browser. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { build } from 'esbuild';

import { TEXT, type All } from './fixture';

const HOME = join(__dirname, '..');

export async function docs({ app, steps, expected }: All): Promise<void> {
  await steps.run('runs the code of docs/app/web.md with the same words', async () => {
    const page = readFileSync(join(HOME, '../docs/app/web.md'), 'utf8');
    const code = /```ts\n([\s\S]*?)```/.exec(page)?.[1] ?? '';
    assert.ok(code.split('\n').length < 60);
    const use = `\nObject.assign(globalThis, { summarize });`;
    const built = await build({
      stdin: { contents: code + use, resolveDir: HOME, loader: 'ts' },
      bundle: true,
      write: false,
      format: 'iife',
      plugins: [{ name: 'copied', setup: (it) => it.onResolve({ filter: /^\.\/kobako\// }, (one) => it.resolve(one.path.replace('./kobako', './src'), { resolveDir: HOME, kind: one.kind })) }],
    });
    writeFileSync(join(HOME, 'dist/docs-web.js'), built.outputFiles[0]?.contents ?? '');
    writeFileSync(join(HOME, 'dist/docs-web.html'), '<!doctype html><title>docs</title><script src="docs-web.js"></script>');
    const tab = await app.page.context().newPage();
    await tab.goto(`${app.address}docs-web.html`);
    const said = await tab.evaluate(async (text) => {
      let whole = '';
      await (window as unknown as { summarize(text: string, onText: (piece: string) => void): Promise<void> }).summarize(text, (piece) => {
        whole += piece;
      });
      return whole;
    }, TEXT);
    await tab.close();
    assert.equal(said.trim(), expected.text.trim());
  });
}
