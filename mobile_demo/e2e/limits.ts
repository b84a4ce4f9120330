/** Devices with too little, packages from a folder, and leaving nothing behind: in a browser that knows nothing yet. */
import assert from 'node:assert/strict';

import type { All } from './fixture';
import { AppPage } from './page';

const NAME = 'smollm2-135m-instruct-int8';

/** In the place of Chrome's own model, which no test machine has. */
const STAND_IN = `
  const streamOf = (text) => new Blob(['The browser read: ', text]).stream().pipeThrough(new TextDecoderStream());
  const create = async () => ({ summarizeStreaming: streamOf, destroy: () => undefined });
  Object.assign(window, { Summarizer: { availability: async () => 'available', create } });
`;

/** What lies in the private file system, by path. */
function stored(app: AppPage): Promise<string[]> {
  return app.page.evaluate(async () => {
    const found: string[] = [];
    const open: [string, FileSystemDirectoryHandle][] = [['', await navigator.storage.getDirectory()]];
    for (let next = open.pop(); next; next = open.pop()) {
      const [prefix, directory] = next;
      for await (const [name, one] of (directory as unknown as { entries(): AsyncIterable<[string, FileSystemHandle]> }).entries()) {
        if (one.kind === 'directory') open.push([`${prefix}${name}/`, one as FileSystemDirectoryHandle]);
        else found.push(prefix + name);
      }
    }
    return found;
  });
}

export async function limits({ app: main, server, steps, context, directory }: All): Promise<void> {
  const other = await context.browser()?.newContext({ viewport: { width: 390, height: 844 }, locale: 'en-US' });
  assert.ok(other);
  const app = new AppPage(await other.newPage(), main.address, main.out);
  const restart = async (script: string | (() => void)) => {
    await app.page.addInitScript(typeof script === 'string' ? { content: script } : script);
    await app.page.reload();
    await app.tab('Models');
  };
  await app.open();
  await steps.run('says when memory is short, before anything is downloaded', async () => {
    await app.tab('Settings');
    await app.page.getByRole('switch', { name: 'Allow packages without a trusted signature' }).click();
    await app.addPackage('unsigned');
    await app.text('Not signed').waitFor();
    await restart(() => Object.defineProperty(navigator, 'deviceMemory', { value: 0.25, configurable: true }));
    await app.button('Install without a trusted signature').click();
    await app.text('This device does not have enough memory for this model.').waitFor();
    assert.deepEqual(await stored(app), []);
  });
  await steps.run('says when space is short, before anything is downloaded', async () => {
    await restart(() => {
      Object.defineProperty(navigator, 'deviceMemory', { value: 8, configurable: true });
      navigator.storage.estimate = async () => ({ quota: 100e6, usage: 0 });
    });
    const before = server.seen.length;
    await app.button('Install without a trusted signature').click();
    await app.text('There is not enough space on this device.').waitFor();
    assert.deepEqual(server.seen.slice(before), []);
  });
  await steps.run('leaves nothing behind of a download that was given up', async () => {
    await restart(() => {
      navigator.storage.estimate = async () => ({ quota: 10e9, usage: 0 });
    });
    server.cutAfter = 20 * 2 ** 20;
    const press = app.button(/Install without a trusted signature|Resume/);
    await press.click();
    await app.text('The download did not work. Check the connection and try again.').waitFor();
    assert.ok((await stored(app)).some((path) => path.endsWith('.tflite')));
    await app.button('Take off the list').click();
    await app.text('No packages are known. Add the address of one, or open its folder.').waitFor();
    await app.page.waitForTimeout(300);
    assert.deepEqual(await stored(app), []);
  });
  await steps.run('installs from a folder, and removes what it installed', async () => {
    const [chooser] = await Promise.all([app.page.waitForEvent('filechooser'), app.button('Open a folder').click()]);
    await chooser.setFiles(directory);
    await app.button('Install without a trusted signature').click();
    await app.button('Verify').waitFor({ timeout: 60_000 });
    assert.ok((await stored(app)).includes(`packages/${NAME}/installed.json`));
    await app.button('Remove').click();
    await app.text(`Remove ${NAME}?`).waitFor();
    await app.button('Remove').click();
    await app.text('Nothing yet. Get a model below.').waitFor();
    assert.deepEqual(await stored(app), []);
    assert.deepEqual(app.problems, []);
  });
  await steps.run("asks the browser's own summarizer where it is ready, and only when told to", async () => {
    await restart(STAND_IN);
    await app.tab('Summarize');
    await app.button('Use this device’s own').click();
    await app.page.getByRole('textbox', { name: 'Text to summarize' }).fill('It rains in Bergen.');
    await app.button('Summarize').click();
    await app.page.getByText('The browser read: It rains in Bergen.', { exact: true }).first().waitFor();
    await app.tab('Settings');
    await app.page.getByRole('switch', { name: 'Use this device’s own models where they are ready' }).click();
    await app.tab('Summarize');
    await app.text('No model for this yet').waitFor();
  });
  await other.close();
}
