/** The code of docs/app/web.md and react-native.md, bundled as it stands there and run in the browser. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { build } from 'esbuild';
import type { Page } from 'playwright-core';

import { TEXT, type All } from './fixture';

const HOME = join(__dirname, '..');

function codeOf(page: string, language: 'ts' | 'tsx'): string {
  const text = readFileSync(join(HOME, '../docs/app', page), 'utf8');
  const code = new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``).exec(text)?.[1] ?? '';
  assert.ok(code.split('\n').length < 60);
  return code;
}

/** A page of its own beside the app, with this code in it. */
async function open({ app }: All, code: string, loader: 'ts' | 'tsx'): Promise<Page> {
  const built = await build({
    stdin: { contents: code, resolveDir: HOME, loader },
    bundle: true,
    write: false,
    format: 'iife',
    jsx: 'automatic',
    alias: { 'react-native': 'react-native-web' },
    resolveExtensions: ['.web.tsx', '.web.ts', '.tsx', '.ts', '.mjs', '.js', '.json'],
    define: { 'process.env.NODE_ENV': '"production"' },
    plugins: [{ name: 'copied', setup: (it) => it.onResolve({ filter: /^\.\/kobako\// }, (one) => it.resolve(one.path.replace('./kobako', './src'), { resolveDir: HOME, kind: one.kind })) }],
  });
  writeFileSync(join(HOME, 'dist/docs-page.js'), built.outputFiles[0]?.contents ?? '');
  writeFileSync(join(HOME, 'dist/docs-page.html'), '<!doctype html><title>docs</title><div id="root"></div><script src="docs-page.js"></script>');
  const tab = await app.page.context().newPage();
  tab.on('pageerror', (error) => app.problems.push(error.message));
  await tab.goto(`${app.address}docs-page.html`);
  return tab;
}

export async function docs(all: All): Promise<void> {
  const { app, steps, expected, publicPem } = all;
  await steps.run('runs the code of docs/app/web.md with the same words', async () => {
    const tab = await open(all, `${codeOf('web.md', 'ts')}\nObject.assign(globalThis, { summarize });`, 'ts');
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
  await steps.run('runs the code of docs/app/react-native.md with the same words', async () => {
    const page = codeOf('react-native.md', 'tsx');
    const code = page
      .replace(/const ADDRESS = .*/, `const ADDRESS = '${app.address}packages/smollm2';`)
      .replace(/const KEYS = .*/, `const KEYS = [{ name: 'test', pem: ${JSON.stringify(publicPem)} }];`);
    assert.equal(code.includes('example.org'), false);
    const mount = `\nimport { createRoot } from 'react-dom/client';\ncreateRoot(document.getElementById('root')!).render(<Summarizer />);`;
    const tab = await open(all, code + mount, 'tsx');
    await tab.getByRole('textbox', { name: 'Text' }).fill(TEXT);
    await tab.getByRole('button', { name: 'Summarize' }).click();
    await tab.getByText(expected.text.trim(), { exact: true }).waitFor({ timeout: 60_000 });
    await tab.close();
  });
}
