// The three settings of a build. No tenant is among them: people of any organization sign in.

const { VITE_SPA_CLIENT_ID, VITE_API_CLIENT_ID, VITE_API_URL } = import.meta.env as Record<
  string,
  string | undefined
>;

export const spaClientId = VITE_SPA_CLIENT_ID ?? "";
export const apiScope = `api://${VITE_API_CLIENT_ID ?? ""}/access_as_user`;
export const apiUrl = (VITE_API_URL || "http://localhost:8000").replace(/\/+$/, "");

/** The names of required settings that have no value. */
export const missingSettings = Object.entries({ VITE_SPA_CLIENT_ID, VITE_API_CLIENT_ID })
  .filter(([, value]) => !value)
  .map(([name]) => name);
