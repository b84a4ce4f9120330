/** For people: without a mouse, in Japanese, in the dark, with a screen reader. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { TEXT, type All } from './fixture';
import type { Tab } from './page';

const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const TABS: readonly Tab[] = ['Translate', 'Summarize', 'Models', 'Check', 'Settings'];

export async function keyboard({ app, steps, expected }: All): Promise<void> {
  await steps.run('can be used with the keyboard alone', async () => {
    const { page } = app;
    await page.reload();
    await page.getByRole('tab').first().waitFor();
    const focusOn = async (role: string, name: string) => {
      for (let presses = 0; presses < 60; presses++) {
        const found = await page.evaluate(() => {
          const it = document.activeElement;
          const role = it?.getAttribute('role') ?? it?.tagName.toLowerCase() ?? '';
          return `${role}:${it?.getAttribute('aria-label') ?? it?.textContent ?? ''}`;
        });
        if (found.startsWith(`${role}:`) && found.includes(name)) return;
        await page.keyboard.press('Tab');
      }
      throw new Error(`the keyboard never reaches ${role} ${name}`);
    };
    await focusOn('tab', 'Summarize');
    await page.keyboard.press('Enter');
    await focusOn('textarea', 'Text to summarize');
    await page.keyboard.insertText(TEXT);
    await focusOn('button', 'Summarize');
    await page.keyboard.press('Enter');
    await app.button('Stop').waitFor();
    assert.equal(await app.summary(), expected.text.trim());
  });
}

export async function looks({ app, steps }: All): Promise<void> {
  const { page } = app;
  await steps.run('speaks Japanese', async () => {
    await app.tab('Settings');
    await page.getByRole('radio', { name: '日本語' }).click();
    await page.getByRole('tab', { name: '要約' }).click();
    await page.getByRole('heading', { name: '要約', level: 1 }).waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.lang), 'ja');
    await app.screenshot('summary-ja');
    await page.getByRole('tab', { name: '設定' }).click();
    await app.screenshot('settings-ja');
    await page.getByRole('radio', { name: 'English' }).click();
  });
  await steps.run('can be dark, by choice and with the system', async () => {
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.getByRole('radio', { name: 'Dark' }).click();
    await page.waitForFunction(() => getComputedStyle(document.body).backgroundColor === 'rgb(20, 21, 19)');
    await app.tab('Summarize');
    await app.screenshot('summary-dark');
    await app.tab('Settings');
    await page.getByRole('radio', { name: 'System' }).click();
    await page.waitForFunction(() => getComputedStyle(document.body).backgroundColor === 'rgb(247, 244, 238)');
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.waitForFunction(() => getComputedStyle(document.body).backgroundColor === 'rgb(20, 21, 19)');
    await page.emulateMedia({ colorScheme: 'light' });
    await page.waitForTimeout(200);
    assert.equal(await ground(), 'rgb(247, 244, 238)');
    await app.screenshot('settings');
  });
  await steps.run('keeps its shape with text at double size', async () => {
    await page.evaluate(() => (document.documentElement.style.fontSize = '200%'));
    await page.setViewportSize({ width: 320, height: 700 });
    for (const tab of TABS) {
      await app.tab(tab);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
      assert.equal(wide, false, `${tab} is wider than the screen`);
    }
    await page.setViewportSize({ width: 390, height: 844 });
    await page.evaluate(() => (document.documentElement.style.fontSize = ''));
  });
}

export async function accessibility({ app, steps }: All): Promise<void> {
  const { page } = app;
  await steps.run('has no serious accessibility finding on any screen, light and dark', async () => {
    await page.evaluate(AXE);
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      for (const tab of TABS) {
        await app.tab(tab);
        await page.waitForTimeout(150);
        const found = await page.evaluate(async () => {
          const axe = (window as unknown as { axe: { run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[] }> } }).axe;
          const { violations } = await axe.run();
          return violations.filter((one) => ['serious', 'critical'].includes(one.impact)).map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160) + ' ' + node.failureSummary).join(' | ')}`);
        });
        assert.deepEqual(found, [], `${tab}, ${colorScheme}`);
      }
    }
    await page.emulateMedia({ colorScheme: 'light' });
  });
}
