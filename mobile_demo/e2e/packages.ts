/** Getting packages: what must be refused, and a download that breaks. */
import assert from 'node:assert/strict';

import type { All } from './fixture';
import type { AppPage } from './page';

const NAME = 'smollm2-135m-instruct-int8';

export async function refusals({ app, steps, publicPem }: All): Promise<void> {
  await steps.run('says what is missing when nothing is installed', async () => {
    await app.text('No model for this yet').waitFor();
    assert.equal(await app.page.evaluate(() => crossOriginIsolated), true);
    await app.screenshot('empty');
    await app.button('Choose a model').click();
    await app.text('Nothing yet. Get a model below.').waitFor();
  });
  await steps.run('refuses an unsigned package', async () => {
    await app.addPackage('unsigned');
    await app.text('Not signed').waitFor();
    await app.button('Get').click();
    await app.text('This package is not signed. It was refused.').waitFor();
    await app.button('Take off the list').click();
  });
  await steps.run('refuses a package signed by an unknown key', async () => {
    await app.addPackage('smollm2');
    await app.text(/Signed by an unknown key/).waitFor();
    await app.button('Get').click();
    await app.text('This package is signed by a key you do not trust. It was refused.').waitFor();
  });
  await steps.run('learns a key and trusts its packages', async () => {
    await trust(app, publicPem);
    await app.tab('Models');
    await app.text('Signed by Test signer').waitFor();
    await app.screenshot('offer');
  });
  await steps.run('refuses a package whose manifest was changed', async () => {
    await app.addPackage('bad-manifest');
    await app.text('This package was changed or damaged. It was refused.').waitFor();
    await app.card(`${app.address}packages/bad-manifest`).getByRole('button', { name: 'Take off the list' }).click();
  });
  await steps.run('refuses a package with a changed file', async () => {
    await app.card(NAME).getByRole('button', { name: 'Take off the list' }).click();
    await app.addPackage('bad-file');
    await app.button('Get').click();
    await app.text('This package was changed or damaged. It was refused.').waitFor();
    await app.text('Nothing yet. Get a model below.').waitFor();
    await app.button('Take off the list').click();
  });
}

async function trust(app: AppPage, publicPem: string): Promise<void> {
  await app.tab('Settings');
  await app.page.getByRole('textbox', { name: 'Name of the signer' }).fill('Test signer');
  await app.page.getByRole('textbox', { name: 'Public key (PEM)' }).fill(publicPem);
  await app.button('Trust this key').click();
}

export async function resume({ app, server, steps, publicPem }: All): Promise<void> {
  if (steps.outcomes.length === 0) await trust(app, publicPem);
  await steps.run('goes on with a download that broke off, after a restart of the app', async () => {
    const before = server.seen.length;
    server.cutAfter = 60 * 2 ** 20;
    await app.addPackage('smollm2');
    await app.button('Get').click();
    await app.text('The download did not work. Check the connection and try again.').waitFor({ timeout: 60_000 });
    await app.page.reload();
    await app.tab('Models');
    await app.button('Resume').waitFor();
    server.slow = 40e6;
    await app.button('Resume').click();
    await app.button('Pause').waitFor();
    await app.page.waitForTimeout(600);
    await app.screenshot('download');
    await app.button('Pause').click();
    await app.button('Resume').waitFor();
    server.slow = null;
    await app.button('Resume').click();
    await app.button('Verify').waitFor({ timeout: 120_000 });
    const seen = server.seen.slice(before);
    const continued = seen.filter((one) => one.path.endsWith('.tflite') && one.status === 206);
    assert.ok(continued.length >= 2, `continued ${continued.length} times`);
    // the browser throws away what it had received and not yet handed over when the connection broke
    const starts = continued.map((one) => Number(/\d+/.exec(one.range ?? '')?.[0]));
    assert.ok(starts.every((start, i) => start > (starts[i - 1] ?? 4 * 2 ** 20)), `continued from ${starts}`);
    assert.ok(!seen.some((one) => one.path.endsWith('.litertlm')), 'took what it does not need');
  }, true);
  await steps.run('verifies every byte on the device again', async () => {
    await app.button('Verify').click();
    await app.text('Every byte is as it should be').waitFor({ timeout: 60_000 });
    await app.screenshot('models');
  });
}
