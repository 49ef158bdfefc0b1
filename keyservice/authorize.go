package keyservice

// authorize decides whether the caller may perform the action ("kms:Decrypt") on the resource: a key's or alias's ARN, or "*". The home's owner
// and the file system may do everything, and nobody else anything; root is somebody else, unless it is the owner.
func (s *Service) authorize(r *request, action, resource string) error {
	if r.caller.ViaFileSystem || r.caller.UID == s.facts.Owner {
		return nil
	}
	policy := "resource"
	if resource == "*" {
		policy = "identity"
	}
	return refuse(CodeAccessDenied, "User: %s is not authorized to perform: %s on resource: %s because no %s-based policy allows the %s action",
		s.names.principal(s.users.name(r.caller.UID)), action, resource, policy, action)
}
