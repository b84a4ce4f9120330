/** Two languages and the button that swaps them. */
import { useState } from 'react';
import { Pressable, Text, View } from 'react-native';

import { useWords } from '../i18n';
import { ownName } from '../tasks/languages';
import { Card, Icon, IconButton, styles } from './parts';
import { radius, space, TOUCH, useColors } from './theme';

interface Props {
  readonly sources: readonly string[];
  readonly targets: readonly string[];
  readonly source: string;
  readonly target: string;
  readonly swappable: boolean;
  readonly onPick: (side: 'source' | 'target', code: string) => void;
  readonly onSwap: () => void;
}

export function LanguageBar({ sources, targets, source, target, swappable, onPick, onSwap }: Props) {
  const t = useWords();
  const [open, setOpen] = useState<'source' | 'target' | null>(null);
  const name = (code: string) => (code === 'auto' ? t('detect') : ownName(code));
  const choose = (code: string) => {
    if (open) onPick(open, code);
    setOpen(null);
  };
  const choices = open === 'source' ? sources : targets;
  return (
    <View style={{ gap: space.s }}>
      <View style={[styles.row, { flexWrap: 'nowrap', gap: space.xs }]}>
        <Picker label={t('from')} value={name(source)} open={open === 'source'} onPress={() => setOpen(open === 'source' ? null : 'source')} />
        <IconButton label={t('swap')} icon="swap-horizontal" disabled={!swappable} onPress={onSwap} />
        <Picker label={t('to')} value={name(target)} open={open === 'target'} onPress={() => setOpen(open === 'target' ? null : 'target')} />
      </View>
      {open && (
        <Card>
          <View role="radiogroup" aria-label={t(open === 'source' ? 'from' : 'to')} style={[styles.row, { gap: space.s }]}>
            {choices.map((code) => (
              <Choice key={code} label={name(code)} chosen={code === (open === 'source' ? source : target)} onPress={() => choose(code)} />
            ))}
          </View>
        </Card>
      )}
    </View>
  );
}

function Picker({ label, value, open, onPress }: { label: string; value: string; open: boolean; onPress: () => void }) {
  const colors = useColors();
  return (
    <Pressable
      role="button"
      aria-label={`${label}: ${value}`}
      aria-expanded={open}
      onPress={onPress}
      style={{
        flex: 1, minHeight: TOUCH, borderRadius: radius.full, borderWidth: 1, borderColor: open ? colors.accent : colors.line, backgroundColor: colors.card,
        flexDirection: 'row', alignItems: 'center', justifyContent: 'center', gap: space.s, paddingHorizontal: space.m,
      }}
    >
      <Text numberOfLines={1} style={{ fontSize: 16, fontWeight: '600', color: colors.text, flexShrink: 1 }}>
        {value}
      </Text>
      <Icon name={open ? 'chevron-up' : 'chevron-down'} size={16} color={colors.soft} />
    </Pressable>
  );
}

function Choice({ label, chosen, onPress }: { label: string; chosen: boolean; onPress: () => void }) {
  const colors = useColors();
  return (
    <Pressable
      role="radio"
      aria-checked={chosen}
      onPress={onPress}
      style={{ minHeight: TOUCH - 4, borderRadius: radius.full, paddingHorizontal: space.l, justifyContent: 'center', backgroundColor: chosen ? colors.accent : colors.tint }}
    >
      <Text style={{ fontSize: 15, fontWeight: '600', color: chosen ? colors.onAccent : colors.accent }}>{label}</Text>
    </Pressable>
  );
}
