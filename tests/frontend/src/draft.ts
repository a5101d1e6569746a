// The text of a new task that has not been added. It survives a reload, and a redirect to Entra when the sign-in has
// expired. It belongs to one tab and one user.

const KEY = "tenant-tasks.draft";

export type Draft = {
  user: string;
  title: string;
  /** The `Idempotency-Key` for this text: the task is added once, however often the request is repeated. */
  key: string;
  /** The sign-in expired before the task was added. */
  interrupted: boolean;
};

export function loadDraft(user: string): Draft | undefined {
  const draft = stored();
  return draft?.user === user ? draft : undefined;
}

export function saveDraft(user: string, title: string, key: string): void {
  store(title ? { user, title, key, interrupted: false } : undefined);
}

export function markDraftInterrupted(): void {
  const draft = stored();
  if (draft) {
    store({ ...draft, interrupted: true });
  }
}

export function clearDraft(): void {
  store(undefined);
}

function stored(): Draft | undefined {
  try {
    return (JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Draft | null) ?? undefined;
  } catch {
    return undefined;
  }
}

function store(draft: Draft | undefined): void {
  try {
    if (draft) {
      sessionStorage.setItem(KEY, JSON.stringify(draft));
    } else {
      sessionStorage.removeItem(KEY);
    }
  } catch {
    // The storage is full or disabled. The text is then only lost if the page is left.
  }
}
