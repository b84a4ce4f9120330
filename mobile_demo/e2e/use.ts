/** Using what was installed: the text is the pipeline's, it can be stopped, nothing leaves the device. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { LONG_TEXT, TEXT, type All } from './fixture';

/** Requests during `action`, apart from the engine's own runtime. */
export async function requestsDuring({ context, app }: All, action: () => Promise<void>): Promise<string[]> {
  const seen: string[] = [];
  const note = (request: { url(): string }) => seen.push(request.url());
  context.on('request', note);
  await action();
  context.off('request', note);
  return seen.filter((url) => !url.startsWith(`${app.address}engine/`) && !url.startsWith(`${app.address}_expo/`));
}

export async function summarizing(all: All): Promise<void> {
  const { app, steps, expected } = all;
  await steps.run('summarizes with the words of kobako run, and sends nothing anywhere', async () => {
    const requests = await requestsDuring(all, async () => {
      await app.tab('Summarize');
      await app.page.getByRole('textbox', { name: 'Text to summarize' }).fill(TEXT);
      const begin = Date.now();
      await app.button('Summarize').click();
      await app.page.getByTestId('result').filter({ visible: true }).waitFor({ timeout: 40_000 });
      steps.figures.firstWordsColdSeconds = (Date.now() - begin) / 1000;
      assert.equal(await app.summary(), expected.text.trim());
      steps.figures.summaryColdSeconds = (Date.now() - begin) / 1000;
    });
    assert.deepEqual(requests, []);
    await app.screenshot('summary');
  }, true);
  await steps.run('answers faster once the model is loaded', async () => {
    const begin = Date.now();
    await app.button('Summarize').click();
    await app.button('Stop').waitFor();
    await app.page.getByTestId('result').filter({ visible: true }).waitFor({ timeout: 60_000 });
    steps.figures.firstWordsWarmSeconds = (Date.now() - begin) / 1000;
    assert.equal(await app.summary(), expected.text.trim());
    steps.figures.summaryWarmSeconds = (Date.now() - begin) / 1000;
    assert.ok((steps.figures.firstWordsWarmSeconds ?? 99) < 10);
  });
  await steps.run('copies, and keeps a history on the device', async () => {
    await app.button('Copy').click();
    assert.equal(await app.page.evaluate(() => navigator.clipboard.readText()), expected.text.trim());
    await app.text('History').waitFor();
  });
}

export async function translating({ app, steps }: All): Promise<void> {
  await steps.run('translates sentence by sentence, into the language that was picked', async () => {
    await app.tab('Translate');
    await app.button('To: Français').click();
    await app.page.getByRole('radio', { name: 'Español' }).click();
    await app.button('To: Español').waitFor();
    await app.button('To: Español').click();
    await app.page.getByRole('radio', { name: 'Français' }).click();
    await app.page.getByRole('textbox', { name: 'Text to translate' }).fill('Good morning.\nI would like a cup of coffee, please.');
    await app.button('Translate').click();
    await app.button('Stop').waitFor();
    await app.button('Translate').waitFor({ timeout: 60_000 });
    const said = (await app.page.getByTestId('result').filter({ visible: true }).textContent()) ?? '';
    assert.match(said, /^[^\n]+\n[^\n]*café[^\n]*$/); // a line for a line, ended by the task's stop string
    await app.screenshot('translation');
    await app.text('History').waitFor();
  });
}

export async function stopping({ app, steps }: All): Promise<void> {
  await steps.run('stops in the middle, and answers the next question in full', async () => {
    await app.page.getByRole('textbox', { name: 'Text to summarize' }).fill(LONG_TEXT);
    await app.button('Summarize').click();
    const result = app.page.getByTestId('result').filter({ visible: true });
    await app.button('Stop').waitFor();
    await result.waitFor({ timeout: 60_000 });
    await app.button('Stop').click();
    await app.text('Stopped').waitFor({ timeout: 5_000 });
    const partial = ((await result.textContent()) ?? '').trim();
    await app.button('Summarize').click();
    await app.button('Stop').waitFor();
    const whole = await app.summary();
    assert.ok(partial.length > 0 && partial.length < whole.length, partial);
    assert.ok(whole.startsWith(partial), `${partial} | ${whole}`);
  });
}

export async function bench({ app, steps }: All): Promise<void> {
  await steps.run('finds that this device computes what was proven, and exports that', async () => {
    await app.tab('Check');
    await app.button('Run the check').click();
    await app.page.getByTestId('golden').waitFor({ timeout: 180_000 });
    await app.screenshot('check');
    const [download] = await Promise.all([app.page.waitForEvent('download'), app.button('Export as JSON').click()]);
    const result = JSON.parse(readFileSync(await download.path(), 'utf8'));
    assert.deepEqual(result.checks.map((check: { name: string }) => check.name), ['ids', 'logits', 'greedy']);
    assert.ok(result.passed, JSON.stringify(result.checks));
    steps.figures.benchTokensPerSecond = result.tokensPerSecond;
    steps.figures.benchLoadMs = result.loadMs;
    steps.figures.benchMemoryBytes = result.memoryBytes;
    console.error(JSON.stringify(result.checks));
  });
}

export async function offline(all: All): Promise<void> {
  const { app, steps, server, context, expected } = all;
  await steps.run('works without network, from a cold start', async () => {
    await app.page.evaluate(async () => navigator.serviceWorker.ready.then(() => undefined));
    await context.setOffline(true);
    await server.stop();
    await app.page.reload();
    await app.text(/No network/).waitFor();
    await app.tab('Summarize');
    await app.page.getByRole('textbox', { name: 'Text to summarize' }).fill(TEXT);
    await app.button('Summarize').click();
    await app.button('Stop').waitFor();
    assert.equal(await app.summary(), expected.text.trim());
    assert.deepEqual(app.problems, []);
  });
}
