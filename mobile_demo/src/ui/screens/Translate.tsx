/** From one language into another, sentence by sentence. */
import { useState } from 'react';
import { View } from 'react-native';

import { useWords } from '../../i18n';
import { packageFor } from '../../state/engine';
import { packages } from '../../state/packages';
import { remember, settings } from '../../state/settings';
import { useStore } from '../../state/store';
import { servedLanguages, type Languages } from '../../tasks/bindings';
import { detect, ownName } from '../../tasks/languages';
import { translate } from '../../tasks/run';
import { ResultCard, SourceField } from '../fields';
import { LanguageBar } from '../LanguageBar';
import { Notice } from '../parts';
import { ActionRow, History, isBusy, NoPackage, RunNotice } from '../taskparts';
import { space } from '../theme';
import { useTask } from '../useTask';

const AUTO = 'auto';

/** What was chosen, or where the package does not know that, the nearest it does. */
function within({ sources, targets }: Languages, chosen: { readonly source: string; readonly target: string }) {
  const detects = chosen.source === AUTO && sources.length > 1;
  const source = detects || sources.includes(chosen.source) ? chosen.source : (sources[0] ?? 'en');
  const fits = targets.includes(chosen.target) && chosen.target !== source;
  return { source, target: fits ? chosen.target : (targets.find((code) => code !== source) ?? 'en') };
}

export function TranslateScreen({ onOpenModels }: { onOpenModels: () => void }) {
  const t = useWords();
  const { installed, ready } = useStore(packages);
  const chosen = useStore(settings);
  const [text, setText] = useState('');
  const [undetected, setUndetected] = useState(false);
  const { run, begin, stop, reset } = useTask();
  const found = packageFor('translate', installed);
  if (!ready) return null;
  if (!found) return <NoPackage reason="noPackageTranslate" onOpenModels={onOpenModels} />;

  const languages = servedLanguages('translate', installed, chosen.bindings);
  const { sources, targets } = languages;
  const { source, target } = within(languages, chosen);
  const told = source === AUTO && text.trim() !== '' ? detect(text, sources) : null;

  const start = async () => {
    const spoken = source === AUTO ? told : source;
    setUndetected(spoken === null);
    if (spoken === null) return;
    const doing = packageFor('translate', installed, { source: spoken, target }) ?? found;
    const output = await begin(doing.installed, doing.task, (context) => translate(context, text, spoken, target));
    if (output) remember({ task: 'translate', input: text.trim(), output, languages: `${spoken} → ${target}` });
  };
  const from = source === AUTO ? (told ?? sources.find((code) => code !== target) ?? 'en') : source;
  const swap = () => {
    settings.set({ source: target, target: from });
    if (run.text !== '' && !isBusy(run)) setText(run.text);
    reset();
  };
  const pick = (side: 'source' | 'target', code: string) => {
    const other = side === 'source' ? target : source;
    const swapped = code === other ? { [side === 'source' ? 'target' : 'source']: side === 'source' ? from : target } : {};
    settings.set({ source, target, ...swapped, [side]: code });
  };
  return (
    <View style={{ gap: space.l }}>
      <LanguageBar
        sources={sources.length > 1 ? [AUTO, ...sources] : sources}
        targets={targets}
        source={source}
        target={target}
        swappable={sources.includes(target) && targets.includes(from)}
        onPick={pick}
        onSwap={swap}
      />
      <SourceField label={t('textToTranslate')} value={text} onChange={setText} />
      {told && <Notice>{t('detected', { name: ownName(told) })}</Notice>}
      {undetected && !told && source === AUTO && <Notice kind="error">{t('notDetected')}</Notice>}
      <ActionRow run={run} label={t('translate')} icon="language" disabled={text.trim() === ''} onStart={() => void start()} onStop={stop} />
      <RunNotice run={run} />
      {run.text !== '' && <ResultCard label={t('translation')} text={run.text} busy={isBusy(run)} />}
      <History
        task="translate"
        onUse={(entry) => {
          reset();
          setText(entry.input);
        }}
      />
    </View>
  );
}
