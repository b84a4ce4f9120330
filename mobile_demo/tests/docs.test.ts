/** The pages for app developers: complete, short, and (in TypeScript) correct by the compiler. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import ts from 'typescript';

const HOME = join(__dirname, '..');
const codeOf = (page: string, language: string) =>
  new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``).exec(readFileSync(join(HOME, '../docs/app', page), 'utf8'))?.[1] ?? '';

test.each([['web.md', 'ts'], ['react-native.md', 'tsx'], ['android.md', 'kotlin'], ['ios.md', 'swift'], ['embeddings.md', 'ts']])('the code of %s is under 60 lines', (page, language) => {
  const lines = codeOf(page, language).split('\n').length;
  expect(lines).toBeGreaterThan(20);
  expect(lines).toBeLessThan(60);
});

test.each([['web.md', 'ts'], ['react-native.md', 'tsx'], ['embeddings.md', 'ts']])('the code of %s has no type error', (page, language) => {
  const directory = mkdtempSync(join(HOME, '.docs-'));
  try {
    const file = join(directory, `page.${language}`);
    writeFileSync(file, codeOf(page, language).replaceAll("'./kobako/", "'../src/"));
    const config = ts.getParsedCommandLineOfConfigFile(join(HOME, 'tsconfig.json'), {}, { ...ts.sys, onUnRecoverableConfigFileDiagnostic: () => undefined });
    const program = ts.createProgram([file], { ...config?.options, noEmit: true });
    const found = ts.getPreEmitDiagnostics(program).filter((one) => one.file?.fileName.startsWith(directory));
    expect(found.map((one) => ts.flattenDiagnosticMessageText(one.messageText, '\n'))).toEqual([]);
  } finally {
    rmSync(directory, { recursive: true });
  }
}, 60_000);
