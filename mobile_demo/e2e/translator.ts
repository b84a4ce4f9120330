/**
 * The translator alone, on a real package of Gemma 3 270M: 270 MB of weights and 262,144 tokens in a browser tab.
 *
 * Environment: as for main.ts; KOBAKO_EXPECTED is what `kobako run --target litert --task translate --to fr --json` printed
 * for SENTENCE.
 */
import assert from 'node:assert/strict';

import type { All } from './fixture';
import { requestsDuring } from './use';

export const SENTENCE = 'How much does this book cost?';

export async function translator(all: All): Promise<void> {
  const { app, steps, expected } = all;
  await steps.run('installs the translator', async () => {
    await app.tab('Settings');
    await app.page.getByRole('switch', { name: 'Allow packages without a trusted signature' }).click();
    await app.addPackage('model');
    await app.button('Install without a trusted signature').click();
    await app.button('Verify').waitFor({ timeout: 240_000 });
  }, true);
  await steps.run('translates with the words of kobako run, and asks nobody', async () => {
    const requests = await requestsDuring(all, async () => {
      await app.tab('Translate');
      await app.page.getByRole('textbox', { name: 'Text to translate' }).fill(SENTENCE);
      assert.equal((await app.translation(steps, 'Cold')).trim(), expected.text.trim());
    });
    assert.deepEqual(requests, []);
    await app.screenshot('translation');
    assert.equal((await app.translation(steps, 'Warm')).trim(), expected.text.trim());
    assert.ok((steps.figures.firstTranslationWarmSeconds ?? 99) < 10);
  });
}
