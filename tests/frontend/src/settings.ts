// Build settings. Tenants are not configured here: users of every tenant can sign in.

const { VITE_SPA_CLIENT_ID, VITE_API_CLIENT_ID, VITE_API_URL, VITE_AUTHORITY_METADATA } = import.meta.env as Record<
  string,
  string | undefined
>;

export const spaClientId = VITE_SPA_CLIENT_ID ?? "";
export const apiScope = `api://${VITE_API_CLIENT_ID ?? ""}/access_as_user`;
export const apiUrl = (VITE_API_URL || "http://localhost:8000").replace(/\/+$/, "");
/** The OpenID Connect metadata of a local Entra, as JSON. Without it, MSAL uses Microsoft Entra. */
export const authorityMetadata = VITE_AUTHORITY_METADATA || undefined;

/** Names of the required settings that are not set. */
export const missingSettings = Object.entries({ VITE_SPA_CLIENT_ID, VITE_API_CLIENT_ID })
  .filter(([, value]) => !value)
  .map(([name]) => name);
