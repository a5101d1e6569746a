// The loaded tasks and the changes to them.

import { useCallback, useEffect, useRef, useState } from "react";
import { createTask, deleteTask, listTasks, updateTask, type Me, type Quota, type Task } from "./client";
import type { Failure } from "./failure";

export type Problem = { message: string; action?: "Try again" | "Reload the list" };

/** After the first page, this many larger pages are loaded without a click. */
const AUTOMATIC_PAGES = 5;

/** `onFatal` gets the failures that replace the whole dashboard. */
export function useTasks(me: Me, onFatal: (failure: Failure) => void) {
  /** Oldest first. */
  const [tasks, setTasks] = useState<Task[]>();
  /** The query of the first page that is not loaded. */
  const [next, setNext] = useState<string>();
  const [problem, setProblem] = useState<Problem>();
  // Cleared before each change, so that a screen reader announces the same text again.
  const [announcement, setAnnouncement] = useState("");
  const [quota, setQuota] = useState<Quota>();
  const [loading, setLoading] = useState(false);
  /** The tasks added here, newest first. They stay on top. */
  const [added, setAdded] = useState<number[]>([]);
  /** Counts loads. A new load ends the previous one. */
  const loads = useRef(0);
  /** Counts loads and changes. A refresh that is overtaken by either discards its result. */
  const version = useRef(0);
  const changing = useRef(0);

  /** The problem to show for a failure. Failures that replace the dashboard go to `onFatal`. */
  const toProblem = useCallback(
    (error: unknown): Problem | undefined => {
      const failure = error as Failure;
      if (failure.kind === "signed-out" || failure.kind === "not-allowed") {
        onFatal(failure);
        return undefined;
      }
      const temporary = failure.kind === "unavailable" || failure.kind === "busy";
      return temporary ? { message: failure.message, action: "Try again" } : { message: failure.message };
    },
    [onFatal],
  );

  /** As `toProblem`, for a change. During an outage it is unknown whether the change was saved. */
  const toChangeProblem = useCallback(
    (error: unknown): Problem | undefined => {
      const found = toProblem(error);
      switch (found && (error as Failure).kind) {
        case "unavailable":
          return { message: `${found?.message} The change may not have been saved.`, action: "Reload the list" };
        case "busy":
          return { message: `The change was not saved. ${found?.message}` };
        default:
          return found;
      }
    },
    [toProblem],
  );

  /** As `toChangeProblem`, for a new task. It can be added again, because its key prevents a second task. */
  const toAddProblem = useCallback(
    (error: unknown): Problem | undefined => {
      const failure = error as Failure;
      return failure.kind === "unavailable"
        ? { message: `${failure.message} Add the task again: it is added only once.` }
        : toChangeProblem(error);
    },
    [toChangeProblem],
  );

  /** Loads pages from `start` on, up to `count` pages. Without `start`, replaces the list by its first pages. */
  const load = useCallback(
    async (start?: string, count = 1 + AUTOMATIC_PAGES): Promise<void> => {
      version.current += 1;
      loads.current += 1;
      const load = loads.current;
      setLoading(true);
      let query = start;
      try {
        for (let pages = 0; pages < count; pages += 1) {
          // Later pages of the start arrive while the user works, so they must not redirect to Entra.
          const page = await listTasks(query, start === undefined && pages > 0);
          if (load !== loads.current) {
            return;
          }
          const isFirst = query === undefined;
          setTasks((shown) => merge(isFirst ? undefined : shown, page.tasks));
          setNext(page.next);
          if (pages === 0) {
            setProblem(undefined);
          }
          query = page.next;
          if (!query) {
            break;
          }
        }
      } catch (error) {
        // The user has not asked for the later pages of the start.
        if (load === loads.current && (start !== undefined || query === undefined)) {
          setProblem(toProblem(error));
        }
      } finally {
        if (load === loads.current) {
          setLoading(false);
        }
      }
    },
    [toProblem],
  );

  const loaded = useRef({ count: 0, loading: false });
  useEffect(() => {
    loaded.current = { count: tasks?.length ?? 0, loading };
  }, [tasks, loading]);

  /** Loads the same part of the list again, without a message. Keeps the shown list if this fails. */
  const refresh = useCallback(async () => {
    const { count, loading } = loaded.current;
    if (changing.current > 0 || loading) {
      return;
    }
    version.current += 1;
    const started = version.current;
    try {
      let tasksNow: Task[] = [];
      let from: string | undefined;
      do {
        const page = await listTasks(from, true);
        tasksNow = tasksNow.concat(page.tasks);
        from = page.next;
      } while (from && tasksNow.length < count);
      if (started === version.current) {
        setTasks((shown) => keepUnchanged(shown, tasksNow));
        setNext(from);
      }
    } catch {
      // The user has not asked for anything. The next action reports the failure.
    }
  }, []);

  useEffect(() => void load(), [load]);
  useEffect(() => {
    const onVisible = () => document.visibilityState === "visible" && void refresh();
    document.addEventListener("visibilitychange", onVisible);
    return () => document.removeEventListener("visibilitychange", onVisible);
  }, [refresh]);

  /** Runs a change. Resolves to its problem, or to undefined on success. */
  const change = useCallback(
    async (run: () => Promise<string>, describe = toChangeProblem): Promise<Problem | undefined> => {
      setAnnouncement("");
      version.current += 1;
      changing.current += 1;
      try {
        setAnnouncement(await run());
        setProblem(undefined);
        return undefined;
      } catch (error) {
        return describe(error) ?? { message: "" };
      } finally {
        version.current += 1;
        changing.current -= 1;
      }
    },
    [toChangeProblem],
  );

  const add = useCallback(
    (title: string, key: string) =>
      change(async () => {
        const created = await createTask({ title }, key);
        setTasks((shown) => merge(shown, [{ ...created.task, owner_id: me.id }]));
        setAdded((ids) => [created.task.id, ...ids]);
        setQuota(created.quota);
        return "Task added";
      }, toAddProblem),
    [change, toAddProblem, me.id],
  );

  const drop = useCallback((id: number) => setTasks((shown) => shown?.filter((task) => task.id !== id)), []);

  /** Changes a task. If it does not exist any more, its row disappears and the list shows why. */
  const update = useCallback(
    async (task: Task, changes: Partial<Pick<Task, "title" | "completed">>, done: string) => {
      let gone = false;
      const failed = await change(async () => {
        try {
          const changed = await updateTask(task.id, changes);
          setTasks((shown) => replace(shown, { ...task, ...changed }));
          return done;
        } catch (error) {
          gone = (error as Failure).kind === "gone";
          throw error;
        }
      });
      if (gone) {
        drop(task.id);
        setProblem({ message: `“${task.title}” no longer exists. It was deleted in the meantime.` });
        return undefined;
      }
      return failed;
    },
    [change, drop],
  );

  const complete = useCallback(
    async (task: Task, completed: boolean) => {
      setTasks((shown) => replace(shown, { ...task, completed }));
      const failed = await update(task, { completed }, completed ? "Task completed" : "Task reopened");
      if (failed) {
        setTasks((shown) => replace(shown, task));
        setProblem(failed.message ? failed : undefined);
      }
    },
    [update],
  );

  const rename = useCallback(
    async (task: Task, title: string) => (await update(task, { title }, "Task renamed"))?.message,
    [update],
  );

  const remove = useCallback(
    async (task: Task) => {
      const failed = await change(async () => {
        await deleteTask(task.id);
        drop(task.id);
        // The number of tasks has changed.
        setQuota(undefined);
        return "Task deleted";
      });
      setProblem(failed?.message ? failed : undefined);
      return failed === undefined;
    },
    [change, drop],
  );

  return { tasks, next, loading, problem, announcement, quota, added, load, add, complete, rename, remove };
}

/** Replaces one task. The other tasks stay the same objects, so that their rows are not rendered again. */
function replace(shown: Task[] | undefined, changed: Task): Task[] | undefined {
  return shown?.map((task) => (task.id === changed.id ? changed : task));
}

/** The new list, with the shown objects of the tasks that have not changed. */
function keepUnchanged(shown: Task[] = [], now: Task[]): Task[] {
  const byId = new Map(shown.map((task) => [task.id, task]));
  return now.map((task) => {
    const old = byId.get(task.id);
    return old && old.title === task.title && old.completed === task.completed ? old : task;
  });
}

/** Merges both lists by id, oldest first. A task in `updates` replaces the one in `shown`. */
function merge(shown: Task[] = [], updates: Task[]): Task[] {
  const byId = new Map(shown.map((task) => [task.id, task]));
  for (const task of updates) {
    byId.set(task.id, task);
  }
  return [...byId.values()].sort((one, other) => one.id - other.id);
}
