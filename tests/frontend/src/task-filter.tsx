import type { Task } from "./client";

export type TaskState = "all" | "open" | "done";
export type Filter = { text: string; state: TaskState; mine: boolean };

export const NO_FILTER: Filter = { text: "", state: "all", mine: false };

export function isActive({ text, state, mine }: Filter): boolean {
  return text.trim() !== "" || state !== "all" || mine;
}

/** Returns a function that tells whether the filter shows a task. */
export function matcher({ text, state, mine }: Filter, user: string): (task: Task) => boolean {
  const wanted = text.trim().toLocaleLowerCase();
  return (task) =>
    (state === "all" || task.completed === (state === "done")) &&
    (!mine || task.owner_id === user) &&
    (!wanted || task.title.toLocaleLowerCase().includes(wanted));
}

type Props = {
  filter: Filter;
  /** Whether the list contains tasks of other users. */
  hasOthers: boolean;
  onChange: (filter: Filter) => void;
};

/** Selects which of the loaded tasks are shown. */
export function TaskFilter({ filter, hasOthers, onChange }: Props) {
  return (
    <search className="filter">
      <input
        type="search"
        aria-label="Filter by title"
        placeholder="Filter by title"
        value={filter.text}
        onChange={(event) => onChange({ ...filter, text: event.target.value })}
      />
      <select
        aria-label="Filter by state"
        value={filter.state}
        onChange={(event) => onChange({ ...filter, state: event.target.value as TaskState })}
      >
        <option value="all">All</option>
        <option value="open">Open</option>
        <option value="done">Done</option>
      </select>
      {hasOthers && (
        <label className="mine">
          <input
            type="checkbox"
            checked={filter.mine}
            onChange={(event) => onChange({ ...filter, mine: event.target.checked })}
          />
          Mine
        </label>
      )}
    </search>
  );
}
