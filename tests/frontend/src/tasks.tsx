import { useCallback, useDeferredValue, useMemo, useRef, useState } from "react";
import type { Me, Quota, Task } from "./client";
import { DeleteDialog } from "./delete-dialog";
import type { Failure } from "./failure";
import { NewTaskForm } from "./new-task-form";
import { PlaceholderRows } from "./notices";
import type { Permissions } from "./permissions";
import { ProblemText } from "./problem-text";
import { isActive, matcher, NO_FILTER, TaskFilter, type Filter } from "./task-filter";
import { TaskItem } from "./task-item";
import { useTasks } from "./use-tasks";

type Props = {
  me: Me;
  permissions: Permissions;
  /** Called for failures that replace the whole dashboard. */
  onFatal: (failure: Failure) => void;
};

/** The number of rows that are shown first, and that "Show more" adds. */
const ROWS = 100;
/** With fewer tasks, a filter would only take room. */
const MIN_TASKS_FOR_FILTER = 10;

/** The task list, with the controls that the user's permissions allow. */
export function Tasks({ me, permissions, onFatal }: Props) {
  const list = useTasks(me, onFatal);
  const { tasks, next, loading, problem, added, load } = list;
  const [rows, setRows] = useState(ROWS);
  const [filter, setFilter] = useState(NO_FILTER);
  // Tasks that were changed or added since the filter was set stay in sight, although they may not match any more.
  const [kept, setKept] = useState<ReadonlySet<number>>(new Set());
  const [addedBefore, setAddedBefore] = useState(0);
  const [taskToDelete, setTaskToDelete] = useState<Task>();
  const heading = useRef<HTMLHeadingElement>(null);
  const title = permissions["View All in Org"] ? "All Tasks in My Organization" : "My Tasks";

  const appliedFilter = useDeferredValue(filter);
  const matching = useMemo(
    () => {
      const inSight = new Set([...kept, ...added.slice(0, added.length - addedBefore)]);
      const matches = matcher(appliedFilter, me.id);
      return newestOnTop(tasks ?? [], added).filter((task) => inSight.has(task.id) || matches(task));
    },
    [tasks, added, addedBefore, appliedFilter, me.id, kept],
  );
  const shown = useMemo(() => matching.slice(0, rows), [matching, rows]);

  const { complete, rename, remove } = list;
  const keep = useCallback((id: number) => setKept((ids) => (ids.has(id) ? ids : new Set(ids).add(id))), []);
  const onComplete = useCallback(
    (task: Task, completed: boolean) => {
      keep(task.id);
      return complete(task, completed);
    },
    [keep, complete],
  );
  const onRename = useCallback(
    (task: Task, newTitle: string) => {
      keep(task.id);
      return rename(task, newTitle);
    },
    [keep, rename],
  );

  const changeFilter = (changed: Filter) => {
    setFilter(changed);
    setKept(new Set());
    setAddedBefore(added.length);
    setRows(ROWS);
  };

  const showMore = async (count: number) => {
    const target = rows + count;
    if (next && target > matching.length && !loading) {
      await load(next, count === Infinity ? Infinity : 1);
    }
    setRows(target);
    // The buttons disappear with the last row.
    heading.current?.focus({ preventScroll: true });
  };

  const closeDialog = (deleted: boolean) => {
    setTaskToDelete(undefined);
    if (deleted) {
      // The focused button was removed with the task.
      heading.current?.focus();
    }
  };

  const total = tasks?.length ?? 0;
  return (
    <section className="card" aria-labelledby="tasks">
      <h2 id="tasks" ref={heading} tabIndex={-1}>
        {title}
      </h2>
      {permissions.Create && <NewTaskForm user={me.id} onAdd={list.add} onReload={() => void load()} />}
      <div role="alert">{problem && <ProblemText problem={problem} onReload={() => void load()} />}</div>
      <p role="status" className="status">
        {loading && !tasks ? "Loading tasks…" : list.announcement}
      </p>
      <p role="status" className="status">
        {list.quota && quotaText(list.quota)}
      </p>
      {!tasks && loading && <PlaceholderRows />}
      {total === 0 && tasks && <p>{permissions.Create ? "No tasks yet. Add the first one above." : "No tasks yet."}</p>}
      {(total > MIN_TASKS_FOR_FILTER || isActive(filter)) && (
        <TaskFilter filter={filter} hasOthers={permissions["View All in Org"]} onChange={changeFilter} />
      )}
      {total > 0 && (
        <p role="status" className="status count">
          {countText({ shown: shown.length, matching: matching.length, total, isComplete: !next }, appliedFilter)}
        </p>
      )}
      {shown.length > 0 && (
        <ul className="tasks" aria-labelledby="tasks">
          {shown.map((task) => (
            <TaskItem
              key={task.id}
              task={task}
              permissions={permissions}
              onComplete={onComplete}
              onRename={onRename}
              onDelete={setTaskToDelete}
            />
          ))}
        </ul>
      )}
      {(next || shown.length < matching.length) && (
        <div className="actions">
          <button type="button" className="secondary" onClick={() => void showMore(ROWS)}>
            Show more
          </button>
          <button type="button" className="secondary" onClick={() => void showMore(Infinity)}>
            Show all
          </button>
        </div>
      )}
      {taskToDelete && (
        <DeleteDialog task={taskToDelete} onDelete={() => remove(taskToDelete)} onClose={closeDialog} />
      )}
    </section>
  );
}

/** The tasks added here first, newest first, then the others, oldest first. */
function newestOnTop(tasks: Task[], added: number[]): Task[] {
  if (added.length === 0) {
    return tasks;
  }
  const ids = new Set(added);
  const top = tasks.filter(({ id }) => ids.has(id)).reverse();
  return [...top, ...tasks.filter(({ id }) => !ids.has(id))];
}

type Counts = { shown: number; matching: number; total: number; isComplete: boolean };

function countText({ shown, matching, total, isComplete }: Counts, filter: Filter): string {
  if (isActive(filter)) {
    return `${number(matching)} of ${isComplete ? "" : "the first "}${number(total)} tasks`;
  }
  if (isComplete && shown === total) {
    return total === 1 ? "1 task" : `${number(total)} tasks`;
  }
  return `${number(shown)} of ${isComplete ? "" : "more than "}${number(total)} tasks`;
}

function quotaText({ used, max }: Quota): string {
  return `Your organization has used ${number(used)} of ${number(max)} tasks.`;
}

function number(value: number): string {
  return value.toLocaleString("en-US");
}
